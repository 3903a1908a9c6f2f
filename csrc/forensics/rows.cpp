#include "forensics/rows.h"

#include "base/error.h"

namespace qf {

void check_rows(const LogprobRowsView& view, const char* name) {
  require(view.offsets.size() == view.targets.size() + 1, name, ": ", view.targets.size(), " targets need ",
          view.targets.size() + 1, " offsets, found ", view.offsets.size());
  require(view.ids.size() == view.logprobs.size(), name, ": ", view.ids.size(), " ids and ", view.logprobs.size(),
          " logprobs");
  require(view.offsets.front() == 0, name, ": offsets start at ", view.offsets.front(), ", expected 0");
  for (size_t row = 0; row + 1 < view.offsets.size(); ++row) {
    require(view.offsets[row] <= view.offsets[row + 1], name, ": offsets fall at row ", row, ": ", view.offsets[row],
            " then ", view.offsets[row + 1]);
  }
  require(view.offsets.back() == static_cast<int64_t>(view.ids.size()), name, ": offsets end at ", view.offsets.back(),
          ", expected ", view.ids.size(), " entries");
}

}  // namespace qf
