# Leaves llama.cpp's `common` library out of the build of llama-cpp-python, which turns it on but uses nothing of it.
# It is half of the compilation. A normal variable takes precedence over the cache entry that is forced to ON.
set(LLAMA_BUILD_COMMON OFF)
