/* device/options.c: parses key=value options against a class's table, with errors that name what would be valid. */
#include "device/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct value {
    char *text; /* as typed, commas restored; NULL: unset. A choice points into the table instead of being compared */
    uint64_t number;
    bool given;
};

struct ob_options {
    const struct ob_option *table;
    size_t count;
    struct value values[];
};

/* The place where an error is told; every failing function below returns what fail() returns. */
struct why {
    char *text;
    size_t size;
};

static int __attribute__((format(printf, 2, 3))) fail(struct why why, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why.text, why.size, format, args);
    va_end(args);
    /* What was typed is quoted in it: keep it one printable line. */
    for (char *c = why.text; why.size > 0 && *c != '\0'; c++)
        if (iscntrl((unsigned char)*c))
            *c = '?';
    return -EINVAL;
}

/* Appends to a text that may already fill its buffer. */
static void __attribute__((format(printf, 3, 4))) append(char *text, size_t size, const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;

    va_start(args, format);
    vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

bool ob_option_required(const struct ob_option *option)
{
    return option->value == NULL && option->type != OB_OPTION_STRING;
}

void ob_option_syntax(const struct ob_option *option, char *text, size_t size)
{
    text[0] = '\0';
    switch (option->type) {
    case OB_OPTION_STRING:
        append(text, size, "TEXT");
        return;
    case OB_OPTION_BOOL:
        append(text, size, "on|off");
        return;
    case OB_OPTION_NUMBER:
    case OB_OPTION_SIZE:
        append(text, size, option->type == OB_OPTION_SIZE ? "SIZE[k|M|G]" : "NUMBER");
        if (option->min != 0 || option->max != 0)
            append(text, size, " (%" PRIu64 " to %" PRIu64 ")", option->min, option->max);
        return;
    case OB_OPTION_CHOICE:
        for (size_t i = 0; option->choices[i] != NULL; i++)
            append(text, size, "%s%s", i > 0 ? "|" : "", option->choices[i]);
        return;
    }
}

/* Levenshtein's distance of two short texts; long ones are never near. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[48];
    size_t n = strlen(b);

    if (n >= sizeof(row) / sizeof(row[0]) || strlen(a) >= sizeof(row) / sizeof(row[0]))
        return UINT32_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= n; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            unsigned best = row[j - 1] < row[j] ? row[j - 1] + 1 : row[j] + 1;

            diagonal = row[j];
            row[j] = change < best ? change : best;
        }
    }
    return row[n];
}

static int unknown_key(struct why why, const struct ob_options *values, const char *key)
{
    char valid[OB_OPTIONS_WHY / 2] = "";
    const char *nearest = NULL;
    unsigned limit = strlen(key) < 4 ? 2 : 3; /* a distance of `limit` is another word, not a slip */

    for (size_t i = 0; i < values->count; i++) {
        unsigned d = distance(key, values->table[i].name);

        append(valid, sizeof(valid), "%s%s", i > 0 ? ", " : "", values->table[i].name);
        if (d < limit) {
            limit = d;
            nearest = values->table[i].name;
        }
    }
    if (values->count == 0)
        return fail(why, "unknown option '%.64s': this device has no options", key);
    if (nearest != NULL)
        return fail(why, "unknown option '%.64s': did you mean '%s'? valid options: %s", key, nearest, valid);
    return fail(why, "unknown option '%.64s': valid options: %s", key, valid);
}

static int bad_value(struct why why, const struct ob_option *option, const char *text)
{
    char syntax[OB_OPTIONS_WHY / 2];

    ob_option_syntax(option, syntax, sizeof(syntax));
    return fail(why, "option '%s': '%.64s' is not valid: give %s", option->name, text, syntax);
}

/* Digits, or 0x and hexadecimal digits, up to *end. strtoull alone would take signs, blanks and octal. */
static bool parse_digits(const char *text, const char **end, uint64_t *number)
{
    unsigned base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
    const char *c = base == 16 ? text + 2 : text;
    uint64_t n = 0;

    if (!isxdigit((unsigned char)*c))
        return false;
    for (; base == 16 ? isxdigit((unsigned char)*c) : isdigit((unsigned char)*c); c++) {
        unsigned digit = isdigit((unsigned char)*c) ? (unsigned)(*c - '0') : (unsigned)((*c | 0x20) - 'a') + 10;

        if (__builtin_mul_overflow(n, (uint64_t)base, &n) || __builtin_add_overflow(n, (uint64_t)digit, &n))
            return false;
    }
    *end = c;
    *number = n;
    return c != text;
}

static bool parse_number(const struct ob_option *option, const char *text, uint64_t *number)
{
    const char *end = text;
    unsigned shift = 0;

    if (!parse_digits(text, &end, number))
        return false;
    if (option->type == OB_OPTION_SIZE && *end != '\0') {
        static const char units[] = "kmg";
        const char *unit = strchr(units, *end | 0x20);

        if (unit == NULL || *unit == '\0')
            return false;
        shift = 10 * (unsigned)(unit - units + 1);
        end++;
    }
    if (*end != '\0' || *number > UINT64_MAX >> shift)
        return false;
    *number <<= shift;
    return (option->min == 0 && option->max == 0) || (*number >= option->min && *number <= option->max);
}

/* Types `text` into `value`, which takes a copy. */
static int set_value(struct why why, const struct ob_option *option, struct value *value, const char *text)
{
    bool valid = false;

    switch (option->type) {
    case OB_OPTION_STRING:
        valid = true;
        break;
    case OB_OPTION_BOOL:
        value->number = strcmp(text, "on") == 0;
        valid = value->number != 0 || strcmp(text, "off") == 0;
        break;
    case OB_OPTION_NUMBER:
    case OB_OPTION_SIZE:
        valid = parse_number(option, text, &value->number);
        break;
    case OB_OPTION_CHOICE:
        for (size_t i = 0; option->choices[i] != NULL && !valid; i++)
            valid = strcmp(text, option->choices[i]) == 0;
        break;
    }
    if (!valid)
        return bad_value(why, option, text);
    value->text = strdup(text);
    if (value->text == NULL) {
        fail(why, "option '%s': out of memory", option->name);
        return -ENOMEM;
    }
    return 0;
}

/* Takes one item off *rest: up to the next single comma, a pair of which stands for one. `item` has room for all. */
static void next_item(const char **rest, char *item)
{
    const char *c = *rest;

    for (; *c != '\0'; c++) {
        if (*c == ',' && c[1] != ',')
            break;
        if (*c == ',')
            c++;
        *item++ = *c;
    }
    *item = '\0';
    *rest = c;
}

static int parse_item(struct why why, struct ob_options *values, char *item)
{
    char *equals = strchr(item, '=');
    size_t i = 0;

    if (equals != NULL)
        *equals = '\0';
    if (*item == '\0')
        return fail(why, "an option is empty: write key=value,key=value, and a comma in a value twice");
    while (i < values->count && strcmp(values->table[i].name, item) != 0)
        i++;
    if (i == values->count)
        return unknown_key(why, values, item);

    const struct ob_option *option = &values->table[i];
    struct value *value = &values->values[i];

    if (value->given)
        return fail(why, "option '%s' is given twice: leave one out", option->name);
    value->given = true;
    if (equals == NULL && option->type != OB_OPTION_BOOL) {
        char syntax[OB_OPTIONS_WHY / 2];

        ob_option_syntax(option, syntax, sizeof(syntax));
        return fail(why, "option '%s' needs a value: %s=%s", option->name, option->name, syntax);
    }
    return set_value(why, option, value, equals != NULL ? equals + 1 : "on");
}

static int parse_items(struct why why, struct ob_options *values, const char *text)
{
    char *item = malloc(strlen(text) + 1);
    int err = 0;

    if (item == NULL) {
        fail(why, "out of memory");
        return -ENOMEM;
    }
    for (const char *rest = text; err == 0;) {
        next_item(&rest, item);
        err = parse_item(why, values, item);
        if (*rest == '\0')
            break;
        rest++; /* the comma: something has to follow it */
    }
    free(item);
    return err;
}

static int fill_defaults(struct why why, struct ob_options *values)
{
    for (size_t i = 0; i < values->count; i++) {
        const struct ob_option *option = &values->table[i];
        int err = 0;

        if (values->values[i].given)
            continue;
        if (ob_option_required(option)) {
            char syntax[OB_OPTIONS_WHY / 2];

            ob_option_syntax(option, syntax, sizeof(syntax));
            return fail(why, "option '%s' is missing: give %s=%s", option->name, option->name, syntax);
        }
        if (option->value != NULL)
            err = set_value(why, option, &values->values[i], option->value);
        if (err < 0)
            return err;
    }
    return 0;
}

int ob_options_parse(const struct ob_option *table, const char *text, struct ob_options **values, char *why,
                     size_t why_size)
{
    struct why place = { why, why_size };
    struct ob_options *parsed;
    size_t count = 0;
    int err = 0;

    while (table != NULL && table[count].name != NULL)
        count++;
    parsed = calloc(1, sizeof(*parsed) + count * sizeof(parsed->values[0]));
    if (parsed == NULL) {
        fail(place, "out of memory");
        return -ENOMEM;
    }
    parsed->table = table;
    parsed->count = count;
    if (text != NULL && *text != '\0')
        err = parse_items(place, parsed, text);
    if (err == 0)
        err = fill_defaults(place, parsed);
    if (err < 0) {
        ob_options_free(parsed);
        return err;
    }
    *values = parsed;
    return 0;
}

void ob_options_free(struct ob_options *values)
{
    if (values == NULL)
        return;
    for (size_t i = 0; i < values->count; i++)
        free(values->values[i].text);
    free(values);
}

/* The value called `name`, whose type has to be one of `types`, a mask of 1 << enum ob_option_type. */
static const struct value *look_up(const struct ob_options *values, const char *name, unsigned types)
{
    for (size_t i = 0; i < values->count; i++)
        if (strcmp(values->table[i].name, name) == 0 && (1u << values->table[i].type & types) != 0)
            return &values->values[i];
    fprintf(stderr, "outboard: the device asks for an option '%s' that its table does not have with that type\n", name);
    abort();
}

const char *ob_options_string(const struct ob_options *values, const char *name)
{
    return look_up(values, name, 1u << OB_OPTION_STRING | 1u << OB_OPTION_CHOICE)->text;
}

uint64_t ob_options_number(const struct ob_options *values, const char *name)
{
    return look_up(values, name, 1u << OB_OPTION_NUMBER | 1u << OB_OPTION_SIZE)->number;
}

bool ob_options_bool(const struct ob_options *values, const char *name)
{
    return look_up(values, name, 1u << OB_OPTION_BOOL)->number != 0;
}
