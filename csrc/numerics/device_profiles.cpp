#include "numerics/device_profiles.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/error.h"

namespace qf {
namespace {

constexpr int input_exponent(InputFormat format) {
  switch (format) {
    case InputFormat::fp16:
    case InputFormat::e5m2: return -14;
    case InputFormat::e4m3: return -6;
    default: return -126;
  }
}

constexpr DeviceUnit make_unit(std::string_view architecture, std::string_view path, InputFormat input,
                               OutputFormat output, UnitMethod method, int products, int fraction_bits,
                               Rounding rounding, int fraction_bits_16, std::string_view source) {
  const int zero_exponent = output == OutputFormat::fp16 ? 4 - fraction_bits_16 : -108 - fraction_bits_16;
  const InputFormat seen = method == UnitMethod::through_fp16 ? InputFormat::fp16 : input;
  return {architecture, path,   input,
          output,       method, {products, fraction_bits, rounding, zero_exponent, input_exponent(seen)},
          source};
}

constexpr DeviceProfile kDevices[] = {
#define QF_DEVICE(name, title, words, architecture, capability, sms, shared_kib, source) \
  {name, title, words, architecture, capability, sms, (shared_kib) * 1024, source},
#define QF_UNIT(...)
#include "numerics/device_profiles.def"
#undef QF_DEVICE
#undef QF_UNIT
};

constexpr DeviceUnit kUnits[] = {
#define QF_DEVICE(...)
#define QF_UNIT(architecture, path, input, output, method, products, fraction, rounding, fraction_16, source)     \
  make_unit(architecture, path, InputFormat::input, OutputFormat::output, UnitMethod::method, products, fraction, \
            Rounding::rounding, fraction_16, source),
#include "numerics/device_profiles.def"
#undef QF_DEVICE
#undef QF_UNIT
};

constexpr std::array<std::string_view, 6> kInputNames = {"fp16", "bf16", "tf32", "e4m3", "e5m2", "int8"};
constexpr std::array<std::string_view, 3> kOutputNames = {"fp32", "fp16", "int32"};
constexpr std::string_view kVendorWords[] = {"nvidia", "tesla", "geforce", "gpu", "tensorcore", "graphics", "card"};

void append_to_list(std::string& list, std::string_view item) {
  if (!list.empty()) list.append(", ");
  list.append(item);
}

template <size_t N>
std::string list_of(const std::array<std::string_view, N>& names) {
  std::string list;
  for (const std::string_view name : names) append_to_list(list, name);
  return list;
}

/// Lower case letters and digits; what is no ASCII stays, so that it matches nothing.
std::string compact(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c >= 'A' && c <= 'Z') result += static_cast<char>(c - 'A' + 'a');
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || static_cast<unsigned char>(c) > 127) result += c;
  }
  return result;
}

void append_words(std::vector<std::string>& words, std::string_view text) {
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find_first_of(" -", begin), text.size());
    if (end > begin) words.push_back(compact(text.substr(begin, end - begin)));
    begin = end + 1;
  }
}

/// The words that every spelling of a device holds: the first of its further words, "6000+ada" being two.
std::vector<std::string> model_words(const DeviceProfile& device) {
  const std::string_view model = device.words.substr(0, device.words.find(' '));
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= model.size();) {
    const size_t end = std::min(model.find('+', begin), model.size());
    words.emplace_back(model.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

std::vector<std::string> all_words(const DeviceProfile& device) {
  std::vector<std::string> words = model_words(device);
  append_words(words, device.name);
  append_words(words, device.words.substr(std::min(device.words.find(' '), device.words.size())));
  append_words(words, device.title);
  for (const std::string_view word : kVendorWords) words.emplace_back(word);
  for (size_t i = 0, n = words.size(); i < n; ++i) {  // 80gb is also 80g and 80
    const std::string word = words[i];                // no reference: words grows
    if (word.size() < 4 || word.compare(word.size() - 2, 2, "gb") != 0) continue;
    words.push_back(word.substr(0, word.size() - 1));
    words.push_back(word.substr(0, word.size() - 2));
  }
  return words;
}

/// Whether `name` (compact) is made of the device's words and vendors' alone, all words of its model among them.
bool fits(const DeviceProfile& device, const std::string& name) {
  const std::vector<std::string> model = model_words(device);
  const std::vector<std::string> words = all_words(device);
  const auto bit = [&](const std::string& word) {
    const auto found = std::find(model.begin(), model.end(), word);
    return found == model.end() ? 0U : 1U << static_cast<unsigned>(found - model.begin());
  };
  // by which sets of model words (bits) the first i characters can be read; bit s of readable[i] is set s
  std::vector<unsigned> readable(name.size() + 1, 0);
  readable[0] = 1;
  for (size_t i = 0; i < name.size(); ++i) {
    for (const std::string& word : words) {
      if (readable[i] == 0 || name.compare(i, word.size(), word) != 0) continue;
      for (unsigned set = 0; set < 4; ++set) {
        if (readable[i] >> set & 1U) readable[i + word.size()] |= 1U << (set | bit(word));
      }
    }
  }
  return (readable[name.size()] >> ((1U << model.size()) - 1) & 1U) != 0;
}

/// Fewest single-character edits from a to b.
size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

/// What is left of a compact name without vendors' words.
std::string without_vendors(std::string name) {
  for (const std::string_view word : kVendorWords) {
    const size_t at = name.find(word);
    if (at != std::string::npos) name.erase(at, word.size());
  }
  return name;
}

/// The three nearest names: by our name, the model's words, or the driver's name.
std::string close_matches(const std::string& spoken) {
  const std::string name = without_vendors(spoken);
  std::vector<std::pair<size_t, std::string_view>> ranked;
  for (const DeviceProfile& device : kDevices) {
    const std::string first = compact(device.name.substr(0, device.name.find('-')));
    const std::string title = without_vendors(compact(device.title));
    ranked.emplace_back(std::min({edits(name, compact(device.name)), edits(name, first), edits(name, title)}),
                        device.name);
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return list_of(std::array{ranked[0].second, ranked[1].second, ranked[2].second});
}

template <class Format, size_t N>
Format parse(const std::array<std::string_view, N>& names, std::string_view name, const char* what) {
  const auto found = std::find(names.begin(), names.end(), name);
  require(found != names.end(), "unknown ", what, " format '", name, "'; one of: ", list_of(names));
  return static_cast<Format>(found - names.begin());
}

}  // namespace

std::span<const DeviceProfile> device_profiles() { return kDevices; }
std::span<const DeviceUnit> device_units() { return kUnits; }

const DeviceProfile& find_device(std::string_view name) {
  const std::string wanted = compact(name);
  for (const DeviceProfile& device : kDevices) {
    if (wanted == compact(device.name) || wanted == compact(device.title)) return device;
  }
  for (const DeviceProfile& device : kDevices) {
    if (wanted.size() <= 64 && fits(device, wanted)) return device;
  }
  std::string all;
  for (const DeviceProfile& device : kDevices) append_to_list(all, device.name);
  require(false, "unknown device '", name.substr(0, 80), "'; closest: ", close_matches(wanted.substr(0, 64)),
          ". All: ", all);
  return kDevices[0];
}

const DeviceUnit& find_unit(const DeviceProfile& device, std::string_view path, InputFormat input,
                            OutputFormat output) {
  std::string has;
  for (const DeviceUnit& unit : kUnits) {
    if (unit.architecture != device.architecture) continue;
    if (unit.path == path && unit.input == input && unit.output == output) return unit;
    append_to_list(has, unit.path);
    has.append(" ").append(format_name(unit.input)).append("->").append(format_name(unit.output));
  }
  require(false, device.name, " has no matrix unit '", path.substr(0, 40), "' from ", format_name(input), " to ",
          format_name(output), "; it has: ", has);
  return kUnits[0];
}

std::string_view format_name(InputFormat format) { return kInputNames[static_cast<size_t>(format)]; }
std::string_view format_name(OutputFormat format) { return kOutputNames[static_cast<size_t>(format)]; }
InputFormat parse_input_format(std::string_view name) { return parse<InputFormat>(kInputNames, name, "input"); }
OutputFormat parse_output_format(std::string_view name) { return parse<OutputFormat>(kOutputNames, name, "output"); }

}  // namespace qf
