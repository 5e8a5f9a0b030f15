# Layers: which folder may include which, and what of the system each one links.
#
# Every include names its layer: #include "base/str.h". A target gets one -I for each layer that
# it may see; each such folder (build/include/<layer>) holds one symbolic link, <layer>, to the
# sources. So an include of another layer does not compile. tests/check_layers says it in words
# and has the same table: change both.

set(TERN_LAYERS base crypto proto mail engine io spool sim lua daemon)

set(TERN_SEES_base   base)
set(TERN_SEES_crypto base crypto)
set(TERN_SEES_proto  base crypto proto)
set(TERN_SEES_mail   base crypto proto mail)
set(TERN_SEES_engine base crypto proto mail engine)
set(TERN_SEES_io     base crypto proto mail engine io)
set(TERN_SEES_spool  base crypto proto mail engine spool)
set(TERN_SEES_sim    base crypto proto mail engine sim)
set(TERN_SEES_lua    base crypto proto mail engine lua)
set(TERN_SEES_daemon ${TERN_LAYERS})

set(TERN_EXTERNAL_base   Threads::Threads m)
set(TERN_EXTERNAL_crypto ext::openssl ext::crypt)
set(TERN_EXTERNAL_mail   ext::idn2)
set(TERN_EXTERNAL_io     ext::ev ext::cares ext::openssl ext::curl)
set(TERN_EXTERNAL_spool  ext::lmdb)
set(TERN_EXTERNAL_lua    ext::lua)
set(TERN_EXTERNAL_daemon ext::jansson ext::microhttpd ext::lua ext::ev ext::cares ext::openssl
                         ext::curl ext::lmdb ext::idn2 ext::crypt ext::seccomp)

foreach(layer IN LISTS TERN_LAYERS)
    set(dir ${CMAKE_BINARY_DIR}/include/${layer})
    file(MAKE_DIRECTORY ${dir})
    if(layer STREQUAL lua)
        file(CREATE_LINK ${CMAKE_SOURCE_DIR}/lua ${dir}/lua SYMBOLIC)
    else()
        file(CREATE_LINK ${CMAKE_SOURCE_DIR}/core/${layer} ${dir}/${layer} SYMBOLIC)
    endif()
endforeach()

# Lets `target` include and link the layers named after it, and what these link of the system.
function(tern_use_layers target)
    foreach(layer IN LISTS ARGN)
        target_include_directories(${target} PRIVATE ${CMAKE_BINARY_DIR}/include/${layer})
        target_link_libraries(${target} PRIVATE tern_${layer} ${TERN_EXTERNAL_${layer}})
    endforeach()
endfunction()

# Defines tern_<layer> from the *.c of the current folder and the files named after the layer.
# A folder without any source yet is an empty target: it links, and offers nothing.
function(tern_layer layer)
    cmake_parse_arguments(arg "" "" "GENERATED;EXCEPT" ${ARGN})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    foreach(name IN LISTS arg_EXCEPT)
        list(REMOVE_ITEM sources ${CMAKE_CURRENT_SOURCE_DIR}/${name})
    endforeach()
    list(APPEND sources ${arg_GENERATED})

    set(below ${TERN_SEES_${layer}})
    list(REMOVE_ITEM below ${layer})
    list(TRANSFORM below PREPEND tern_)
    if(NOT sources)
        add_library(tern_${layer} INTERFACE)
        target_link_libraries(tern_${layer} INTERFACE ${below})
        return()
    endif()

    add_library(tern_${layer} STATIC ${sources})
    foreach(seen IN LISTS TERN_SEES_${layer})
        target_include_directories(tern_${layer} PRIVATE ${CMAKE_BINARY_DIR}/include/${seen})
    endforeach()
    target_include_directories(tern_${layer} SYSTEM PRIVATE ${TERN_uthash_INCLUDE})
    # Static libraries hand on what must be linked, not what may be included.
    target_link_libraries(tern_${layer} PUBLIC ${below} PRIVATE ${TERN_EXTERNAL_${layer}})
endfunction()
