/* Tests of device/options.c: every type, every mistake, and the line that each mistake gets. */
#include "device/options.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const choices[] = { "pty", "unix", NULL };
static const struct ob_option table[] = {
    { .name = "path", .help = "of a socket", .type = OB_OPTION_STRING },
    { .name = "label", .help = "a name", .type = OB_OPTION_STRING, .value = "none" },
    { .name = "listen", .help = "wait for peers", .type = OB_OPTION_BOOL, .value = "off" },
    { .name = "queues", .help = "how many", .type = OB_OPTION_NUMBER, .value = "1", .min = 1, .max = 8 },
    { .name = "any", .help = "any number", .type = OB_OPTION_NUMBER, .value = "0" },
    { .name = "size", .help = "of memory", .type = OB_OPTION_SIZE, .value = "64k", .min = 4096, .max = 1ull << 32 },
    { .name = "backend", .help = "what it is on", .type = OB_OPTION_CHOICE, .value = "pty", .choices = choices },
    OB_OPTION_END,
};
static const struct ob_option needy[] = {
    { .name = "size", .help = "of memory", .type = OB_OPTION_SIZE },
    { .name = "kind", .help = "of it", .type = OB_OPTION_CHOICE, .choices = choices },
    OB_OPTION_END,
};

static struct ob_options *parse(const struct ob_option *options, const char *text)
{
    char why[OB_OPTIONS_WHY] = "";
    struct ob_options *values = NULL;

    if (ob_options_parse(options, text, &values, why, sizeof(why)) != 0)
        fail_msg("'%s': %s", text != NULL ? text : "(null)", why);
    return values;
}

static void refuses(const struct ob_option *options, const char *text, const char *line)
{
    char why[OB_OPTIONS_WHY] = "";
    struct ob_options *values = NULL;

    assert_int_equal(ob_options_parse(options, text, &values, why, sizeof(why)), -EINVAL);
    assert_null(values);
    assert_string_equal(why, line);
}

static void test_defaults(void **state)
{
    static const char *const nothing[] = { NULL, "" };

    for (size_t i = 0; i < 2; i++) {
        struct ob_options *values = parse(table, nothing[i]);

        assert_null(ob_options_string(values, "path"));
        assert_string_equal(ob_options_string(values, "label"), "none");
        assert_false(ob_options_bool(values, "listen"));
        assert_int_equal(ob_options_number(values, "queues"), 1);
        assert_int_equal(ob_options_number(values, "size"), 65536);
        assert_string_equal(ob_options_string(values, "backend"), "pty");
        ob_options_free(values);
    }
    ob_options_free(parse(NULL, NULL));
    ob_options_free(NULL);
}

static void test_values(void **state)
{
    struct ob_options *values =
        parse(table, "path=/a,,b=c,,,,d,listen,queues=0x8,size=4G,backend=unix,label=,any=0xFFFFFFFFFFFFFFFF");

    assert_string_equal(ob_options_string(values, "path"), "/a,b=c,,d");
    assert_string_equal(ob_options_string(values, "label"), "");
    assert_true(ob_options_bool(values, "listen"));
    assert_int_equal(ob_options_number(values, "queues"), 8);
    assert_true(ob_options_number(values, "size") == 1ull << 32);
    assert_true(ob_options_number(values, "any") == UINT64_MAX);
    assert_string_equal(ob_options_string(values, "backend"), "unix");
    ob_options_free(values);
    /* a value that ends in a comma, before another option */
    values = parse(table, "path=x,,,listen=on");
    assert_string_equal(ob_options_string(values, "path"), "x,");
    assert_true(ob_options_bool(values, "listen"));
    ob_options_free(values);
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t size;
    } sizes[] = { { "size=4096", 4096 },  { "size=4k", 4096 },         { "size=5K", 5120 },
                  { "size=1m", 1 << 20 }, { "size=0x1000k", 4 << 20 }, { "size=1G", 1 << 30 } };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct ob_options *values = parse(table, sizes[i].text);

        assert_true(ob_options_number(values, "size") == sizes[i].size);
        ob_options_free(values);
    }
}

static void test_bad_numbers(void **state)
{
    static const char *const queues[] = { "0",  "9",  "",  "-1",  "+1",  " 1",  "1 ",
                                          "1k", "0x", "x", "1.5", "abc", "0b1", "18446744073709551617" };
    static const char *const sizes[] = { "4095", "4T", "4kk", "k", "4097m", "18014398509481985k", "4 k" };
    char text[64], line[OB_OPTIONS_WHY];

    for (size_t i = 0; i < sizeof(queues) / sizeof(queues[0]); i++) {
        snprintf(text, sizeof(text), "queues=%s", queues[i]);
        snprintf(line, sizeof(line), "option 'queues': '%s' is not valid: give NUMBER (1 to 8)", queues[i]);
        refuses(table, text, line);
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        snprintf(text, sizeof(text), "size=%s", sizes[i]);
        snprintf(line, sizeof(line), "option 'size': '%s' is not valid: give SIZE[k|M|G] (4096 to 4294967296)",
                 sizes[i]);
        refuses(table, text, line);
    }
    refuses(table, "any=18446744073709551616", "option 'any': '18446744073709551616' is not valid: give NUMBER");
}

static void test_mistakes(void **state)
{
    refuses(table, "listen=yes", "option 'listen': 'yes' is not valid: give on|off");
    refuses(table, "backend=tcp", "option 'backend': 'tcp' is not valid: give pty|unix");
    refuses(table, "path", "option 'path' needs a value: path=TEXT");
    refuses(table, "listen,listen=off", "option 'listen' is given twice: leave one out");
    refuses(table, "listn=on",
            "unknown option 'listn': did you mean 'listen'? valid options: path, label, listen, queues, any, size, "
            "backend");
    refuses(table, "zzzzzz=on",
            "unknown option 'zzzzzz': valid options: path, label, listen, queues, any, size, backend");
    refuses(NULL, "x=1", "unknown option 'x': this device has no options");
    refuses(needy, "kind=pty", "option 'size' is missing: give size=SIZE[k|M|G]");
    refuses(needy, "size=1", "option 'kind' is missing: give kind=pty|unix");
    for (size_t i = 0; i < 4; i++) {
        static const char *const empty[] = { ",", "listen,", ",listen", "=x" };
        char why[OB_OPTIONS_WHY];
        struct ob_options *values;

        /* ",listen" begins with a single comma, so an empty item */
        assert_int_equal(ob_options_parse(table, empty[i], &values, why, sizeof(why)), -EINVAL);
        assert_non_null(strstr(why, "an option is empty"));
    }
}

/* What is typed can hold anything; the line stays one, and within its buffer. */
static void test_hostile_text(void **state)
{
    char text[4096], why[OB_OPTIONS_WHY], small[8];
    struct ob_options *values;

    refuses(table, "a\nb\x1b=1",
            "unknown option 'a?b?': valid options: path, label, listen, queues, any, size, backend");
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(ob_options_parse(table, text, &values, why, sizeof(why)), -EINVAL);
    assert_true(strlen(why) < sizeof(why));
    assert_int_equal(ob_options_parse(table, text, &values, small, sizeof(small)), -EINVAL);
    assert_string_equal(small, "unknown");
    memcpy(text, "path=", 5);
    values = parse(table, text);
    assert_int_equal(strlen(ob_options_string(values, "path")), sizeof(text) - 6);
    ob_options_free(values);
}

/* A bad default is the class's mistake and is told like the operator's. */
static void test_bad_default(void **state)
{
    static const struct ob_option bad[] = { { .name = "n", .type = OB_OPTION_NUMBER, .value = "many" }, OB_OPTION_END };

    refuses(bad, NULL, "option 'n': 'many' is not valid: give NUMBER");
}

/* A name or type that the table does not have ends the process. */
static void ask_wrongly(const char *name, bool as_number)
{
    struct ob_options *values = parse(table, NULL);
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka's */
        fclose(stderr);
        if (as_number)
            ob_options_number(values, name);
        else
            ob_options_string(values, name);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    ob_options_free(values);
}

static void test_wrong_question(void **state)
{
    ask_wrongly("nonsense", false);
    ask_wrongly("path", true);
    ask_wrongly("queues", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_values),         cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_bad_numbers), cmocka_unit_test(test_mistakes),       cmocka_unit_test(test_hostile_text),
        cmocka_unit_test(test_bad_default), cmocka_unit_test(test_wrong_question),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
