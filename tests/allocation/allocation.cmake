# Tests in which allocations of the router fail: allocation/allocation.h. Whose an allocation is, is told by the section that
# the code lies in: those of core/engine and lua, and those of core/sim, are linked from copies of their libraries.
set(marked "")
foreach(pair router:engine router:lua world:sim)
    string(REPLACE ":" ";" pair ${pair})
    list(GET pair 0 side)
    list(GET pair 1 layer)
    set(copy ${CMAKE_CURRENT_BINARY_DIR}/lib${side}_${layer}.a)
    add_custom_command(
        OUTPUT ${copy}
        COMMAND ${CMAKE_OBJCOPY} --rename-section .text=${side}_text
                $<TARGET_FILE:tern_${layer}> ${copy}
        DEPENDS tern_${layer}
        COMMENT "Marking the code of ${layer}"
        VERBATIM)
    list(APPEND marked ${copy})
endforeach()
add_custom_target(tern_marked_layers DEPENDS ${marked})

set(dir ${CMAKE_CURRENT_SOURCE_DIR}/allocation)
file(GLOB tests CONFIGURE_DEPENDS ${dir}/test_*.c)
file(GLOB helpers CONFIGURE_DEPENDS ${dir}/*.c)
list(REMOVE_ITEM helpers ${tests})
list(APPEND helpers ${CMAKE_CURRENT_SOURCE_DIR}/scenario/fixture.c
     ${CMAKE_CURRENT_SOURCE_DIR}/scenario/ledger.c)
set(layers base crypto proto mail engine sim lua)
add_library(allocation_helpers OBJECT ${helpers})
target_include_directories(allocation_helpers PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/scenario)
tern_use_layers(allocation_helpers ${layers})
target_link_libraries(allocation_helpers PRIVATE PkgConfig::CMOCKA)
foreach(source IN LISTS tests)
    get_filename_component(name ${source} NAME_WE)
    string(REGEX REPLACE "^test_" "allocation_" name ${name})
    add_executable(${name} ${source})
    target_sources(${name} PRIVATE $<TARGET_OBJECTS:allocation_helpers>)
    target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/scenario)
    # First, so that nothing of these layers is taken from the libraries that they are copies of.
    target_link_options(${name} PRIVATE -Wl,--whole-archive ${marked} -Wl,--no-whole-archive)
    set_target_properties(${name} PROPERTIES LINK_DEPENDS "${marked}")
    add_dependencies(${name} tern_marked_layers)
    tern_use_layers(${name} ${layers})
    target_link_libraries(${name} PRIVATE PkgConfig::CMOCKA ${CMAKE_DL_LIBS})
    add_test(NAME ${name} COMMAND ${name})
    tern_register(${name} allocation 400)
endforeach()
