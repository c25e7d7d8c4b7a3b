/* device/options.h: the key=value options of a device class, parsed and typed. */
#ifndef OB_DEVICE_OPTIONS_H
#define OB_DEVICE_OPTIONS_H

#include <outboard/device.h>

/* Long enough for the one line that says what is wrong with an option and what would be valid. */
#define OB_OPTIONS_WHY 512

/* The values of one device. Immutable after parsing, so any thread may look things up. */
struct ob_options;

/* Parses `text`, "key=value,key=value" (NULL or empty: none), against `table` (NULL: the class has none), which has to
 * outlive the result. A comma in a value is written twice; a lone key turns a BOOL on. Defaults are filled in.
 * On success returns 0; *values is the caller's, to be freed with ob_options_free(). Returns -EINVAL or -ENOMEM with
 * one line, without a newline, in why[why_size]: the key, its value, and what would be valid. */
int ob_options_parse(const struct ob_option *table, const char *text, struct ob_options **values, char *why,
                     size_t why_size);
/* NULL is fine. */
void ob_options_free(struct ob_options *values);

/* The value of an option, as ob_option_string() and its siblings give it. A name that the table does not have, or has
 * with another type, is a mistake in the device's source: it ends the process with a line that says so. */
const char *ob_options_string(const struct ob_options *values, const char *name); /* STRING, CHOICE; NULL: unset */
uint64_t ob_options_number(const struct ob_options *values, const char *name);    /* NUMBER, SIZE */
bool ob_options_bool(const struct ob_options *values, const char *name);

/* How a value of the option is written, for help and errors: "TEXT", "on|off", "NUMBER (1 to 8)", "pty|unix". */
void ob_option_syntax(const struct ob_option *option, char *text, size_t size);
/* Whether the operator has to give the option. */
bool ob_option_required(const struct ob_option *option);

#endif
