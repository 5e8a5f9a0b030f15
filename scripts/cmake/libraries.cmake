# The libraries that come from the system, each as one target to link: ext::<name>.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

function(tern_pkg name module)
    pkg_check_modules(${name} REQUIRED QUIET IMPORTED_TARGET GLOBAL ${module})
    add_library(ext::${name} ALIAS PkgConfig::${name})
endfunction()

# For those that ship no .pc file.
function(tern_lib name header library)
    find_path(TERN_${name}_INCLUDE ${header} REQUIRED)
    find_library(TERN_${name}_LIBRARY ${library} REQUIRED)
    mark_as_advanced(TERN_${name}_INCLUDE TERN_${name}_LIBRARY)
    add_library(ext::${name} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(ext::${name} PROPERTIES
        IMPORTED_LOCATION ${TERN_${name}_LIBRARY}
        INTERFACE_INCLUDE_DIRECTORIES ${TERN_${name}_INCLUDE})
endfunction()

tern_pkg(lua lua5.4)
tern_pkg(cares libcares)
tern_pkg(openssl openssl)
tern_pkg(curl libcurl)
tern_pkg(jansson jansson)
tern_pkg(microhttpd libmicrohttpd)
tern_pkg(idn2 libidn2)
tern_pkg(seccomp libseccomp)
tern_lib(ev ev.h ev)
tern_lib(lmdb lmdb.h lmdb)
tern_lib(crypt crypt.h crypt)
find_path(TERN_uthash_INCLUDE uthash.h REQUIRED)
mark_as_advanced(TERN_uthash_INCLUDE)
