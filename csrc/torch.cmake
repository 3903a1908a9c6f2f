# Finds LibTorch of the building Python and makes the target qf_torch. `find_package(Torch)` is avoided: with a CUDA build of
# torch it demands a CUDA toolkit of the same version, and it adds flags of its own; headers and two libraries are all we need.
if(QF_ENGINE STREQUAL "OFF")
  return()
endif()
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c "import importlib.util, os; s = importlib.util.find_spec('torch'); print(os.path.dirname(s.origin) if s else '')"
  OUTPUT_VARIABLE QF_TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT QF_TORCH_DIR)
  if(QF_ENGINE STREQUAL "ON")
    message(FATAL_ERROR "QF_ENGINE=ON, but ${Python_EXECUTABLE} has no torch. Install torch >= 2.11 there, or configure with -DQF_ENGINE=OFF.")
  endif()
  message(WARNING "No torch in ${Python_EXECUTABLE}: _engine is not built (traces can still be judged). "
                  "To build it, install torch >= 2.11 and build with --no-build-isolation.")
  return()
endif()
add_library(qf_torch INTERFACE)
target_include_directories(qf_torch SYSTEM INTERFACE ${QF_TORCH_DIR}/include ${QF_TORCH_DIR}/include/torch/csrc/api/include)
target_link_libraries(qf_torch INTERFACE ${QF_TORCH_DIR}/lib/libtorch_cpu.so ${QF_TORCH_DIR}/lib/libc10.so)
