/* Tests of device/describe.c: the description is JSON, and says what the class says. */
#include <outboard/server.h>

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const choices[] = { "a", "b", NULL };
static const struct ob_option options[] = {
    { .name = "path", .help = "of \"it\"", .type = OB_OPTION_STRING },
    { .name = "size", .help = "of memory", .type = OB_OPTION_SIZE, .value = "4k", .min = 1, .max = UINT64_MAX },
    { .name = "kind", .type = OB_OPTION_CHOICE, .choices = choices },
    OB_OPTION_END,
};
static const struct ob_reg regs[] = { OB_REG_END };
static const struct ob_area areas[] = {
    { .off = 0, .size = 4096, .regs = regs },
    { .off = 4096, .size = 4096, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    { .off = 8192, .size = 8 },
    OB_AREA_END,
};

OB_CLASS(full, .summary = "has it all",
         .pci = { .vendor = 0x1234,
                  .device = 0x11e8,
                  .subsystem_vendor = 1,
                  .subsystem_device = 2,
                  .class_code = 0x070002,
                  .revision = 3,
                  .express = true },
         .irqs = { .intx = true, .msi = 4, .msix = 2048 },
         .bars[1] = { .size = 1ull << 40, .flags = OB_BAR_64 | OB_BAR_PREFETCH, .areas = areas },
         .bars[4] = { .size = 8, .flags = OB_BAR_IO }, .options = options, .state = { .size = 12, .version = 3 },
         .shared = { .size = 4096, .version = 1 }, .max_reply_ms = 9000);
OB_CLASS(bare);

static json_t *describe(const struct ob_device_class *cls)
{
    char *text = ob_class_describe(cls);
    json_error_t error;
    json_t *object;

    assert_non_null(text);
    object = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        fail_msg("%s: %s", error.text, text);
    free(text);
    return object;
}

/* Compares with a text in which ' stands for ". */
static void same(const json_t *value, const char *text)
{
    char *expected = strdup(text), *found = json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);

    for (char *c = expected; *c != '\0'; c++)
        if (*c == '\'')
            *c = '"';
    assert_string_equal(found, expected);
    free(found);
    free(expected);
}

static void test_full(void **state)
{
    json_t *object = describe(&ob_class_full);

    same(json_object_get(object, "type"), "'communication'");
    same(json_object_get(object, "name"), "'full'");
    same(json_object_get(object, "summary"), "'has it all'");
    same(json_object_get(object, "features"),
         "['lifeline','option','ready-fd','socket-group','socket-mode','socket-owner']");
    same(json_object_get(object, "pci"),
         "{'vendor':4660,'device':4584,'subsystem-vendor':1,'subsystem-device':2,'class':458754,'revision':3,"
         "'power-management':false,'express':true}");
    same(json_object_get(object, "irqs"), "{'intx':true,'msi':4,'msix':2048}");
    same(json_object_get(object, "bars"),
         "[{'index':1,'size':1099511627776,'io':false,'64bit':true,'prefetch':true,'areas':["
         "{'offset':0,'size':4096,'kind':'registers','mappable':false},"
         "{'offset':4096,'size':4096,'kind':'memory','mappable':true},"
         "{'offset':8192,'size':8,'kind':'callback','mappable':false}]},"
         "{'index':4,'size':8,'io':true,'64bit':false,'prefetch':false,'areas':[]}]");
    same(json_object_get(object, "options"),
         "[{'name':'path','type':'string','help':'of \\'it\\'','required':false},"
         "{'name':'size','type':'size','help':'of memory','required':false,'default':'4k','min':1,"
         "'max':9223372036854775807},"
         "{'name':'kind','type':'choice','help':'','required':true,'choices':['a','b']}]");
    same(json_object_get(object, "state"), "{'size':12,'version':3}");
    same(json_object_get(object, "shared"), "{'size':4096,'version':1}");
    same(json_object_get(object, "max-reply-ms"), "9000");
    json_decref(object);
}

static void test_bare(void **state)
{
    json_t *object = describe(&ob_class_bare);

    same(json_object_get(object, "type"), "'unclassified'");
    same(json_object_get(object, "summary"), "''");
    same(json_object_get(object, "bars"), "[]");
    same(json_object_get(object, "options"), "[]");
    same(json_object_get(object, "max-reply-ms"), "4000");
    json_decref(object);
}

/* Whatever allocation of the description fails, nothing leaks and nothing is left out: NULL, or the whole text.
 * Printing it is jansson's own, and not tried. */
static size_t allocations, failing;

static void *limited(size_t size)
{
    return ++allocations == failing ? NULL : malloc(size);
}

static void test_no_memory(void **state)
{
    json_t *object = describe(&ob_class_full);
    size_t printing, all;
    char *whole;

    json_set_alloc_funcs(limited, free);
    free(json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER));
    printing = allocations;
    allocations = 0;
    whole = ob_class_describe(&ob_class_full);
    all = allocations;
    assert_non_null(whole);
    assert_true(all - printing > 100);
    for (failing = 1; failing <= all - printing; failing++) {
        char *text;

        allocations = 0;
        text = ob_class_describe(&ob_class_full);
        if (text != NULL)
            assert_string_equal(text, whole);
        free(text);
    }
    json_set_alloc_funcs(malloc, free);
    json_decref(object);
    free(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_bare),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
