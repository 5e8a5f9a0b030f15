# Compiler and linker flags of everything that is built here. For gcc 12 and clang 14 on.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

set(CMAKE_C_FLAGS_DEBUG "-O1 -g -fno-omit-frame-pointer")
# assert() stays in a release: a router that goes on with a broken invariant loses mail.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")

find_program(CCACHE ccache)
mark_as_advanced(CCACHE)
if(CCACHE AND NOT CMAKE_C_COMPILER_LAUNCHER)
    set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
endif()

add_compile_definitions(_GNU_SOURCE)
add_compile_options(
    -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes
    -Wvla -Wformat=2 -Wundef -Wno-unused-parameter)
if(TERN_WERROR)
    add_compile_options(-Werror)
endif()

add_compile_options(-fPIE -fstack-protector-strong)
add_link_options(-pie -Wl,-z,relro,-z,now)

if(TERN_SANITIZE)
    add_compile_options(-fsanitize=${TERN_SANITIZE} -fno-sanitize-recover=all
        -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${TERN_SANITIZE})
    if(CMAKE_C_COMPILER_ID STREQUAL GNU)
        # gcc documents that the sanitizers' own code makes this warning wrong.
        add_compile_options(-Wno-maybe-uninitialized)
    endif()
elseif(CMAKE_BUILD_TYPE STREQUAL Release)
    add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif()

if(TERN_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID MATCHES Clang)
        message(FATAL_ERROR "TERN_FUZZ needs clang: use the preset `fuzz`")
    endif()
    add_compile_options(-fsanitize=fuzzer-no-link)
    add_compile_definitions(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION=1)
endif()

if(TERN_LTO)
    include(CheckIPOSupported)
    check_ipo_supported(LANGUAGES C)
    set(CMAKE_INTERPROCEDURAL_OPTIMIZATION ON)
endif()
