/* tools/builtin.c: the devices that are built into the command. */
#include "tool.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* builtin-list.h, made from the list of devices/meson.build, has a line DEVICE(name) for each. */
#define DEVICE(name) extern const struct ob_device_class ob_class_##name;
#include "builtin-list.h"
#undef DEVICE

#define DEVICE(name) &ob_class_##name,
const struct ob_device_class *const builtin_devices[] = {
#include "builtin-list.h"
    NULL,
};
#undef DEVICE

const struct ob_device_class *builtin_find(const char *name, size_t len)
{
    for (const struct ob_device_class *const *cls = builtin_devices; *cls != NULL; cls++)
        if (strlen((*cls)->name) == len && memcmp((*cls)->name, name, len) == 0)
            return *cls;
    return NULL;
}

void builtin_unknown(const char *command, const char *name, size_t len, const char *otherwise)
{
    fprintf(stderr, "outboard %s: there is no device '%.*s': the built-in ones are", command, (int)len, name);
    for (const struct ob_device_class *const *cls = builtin_devices; *cls != NULL; cls++)
        fprintf(stderr, " %s%s", (*cls)->name, cls[1] != NULL ? "," : "");
    fprintf(stderr, "; %s\n", otherwise);
}

void say(const char *format, ...)
{
    va_list args;

    flockfile(stderr);
    fputs("outboard: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    funlockfile(stderr);
}
