/* tools/run_qemu.c: QEMU's command line: what of it concerns us, and what has to be added.
 *
 * A device reaches guest memory through the file behind it, so that has to be shared. If the user says nothing of
 * memory, a shared backend of the size that -m gives is added; if the user has backends of his own, they have to be
 * shared already, and nothing is added. Options are known by their names wherever they stand: QEMU's list of those
 * without a value grows, and a value that looks like one of these options is rarer than an option we do not know.
 */
#include "run.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MIB                 (1024ull * 1024)
#define DEFAULT_MEMORY      (128 * MIB) /* of QEMU's PC machines */
#define MEMORY_ID           "outboard-ram"
#define OPTIONS_FOR_DEVICES 2 /* words that a device adds: -device JSON */

/* What the user's command line says of memory. All strings malloc'ed; NULL: not said. */
struct memory {
    char *size;    /* -m */
    char *backend; /* -machine memory-backend= */
    bool numa;     /* -numa memdev= is used */
};

/* --- Keys -------------------------------------------------------------------------------------------------------- */

static char *json_key(const char *text, const char *key)
{
    json_t *object = json_loads(text, 0, NULL);
    const json_t *value = json_object_get(object, key);
    char *found = NULL;

    if (json_is_string(value))
        found = run_format("%s", json_string_value(value));
    else if (json_is_boolean(value))
        found = run_format("%s", json_is_true(value) ? "on" : "off");
    else if (json_is_integer(value))
        found = run_format("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    json_decref(object);
    return found;
}

char *run_key(const char *text, const char *implied, const char *key)
{
    char *found = NULL, *item = run_alloc(strlen(text) + 1, 1);
    bool first = true;

    if (*text == '{') {
        free(item);
        return json_key(text, key);
    }
    for (const char *c = text;; c++, first = false) {
        size_t n = 0;
        char *equals;

        for (; *c != '\0' && (*c != ',' || c[1] == ','); c++) {
            if (*c == ',')
                c++;
            item[n++] = *c;
        }
        item[n] = '\0';
        equals = strchr(item, '=');
        if (equals != NULL)
            *equals = '\0';
        const char *name = equals == NULL && first && implied != NULL ? implied : item;

        if (strcmp(name, key) == 0) {
            free(found);
            found = run_format("%s", equals != NULL ? equals + 1 : name == implied ? item : "on");
        }
        if (*c == '\0')
            break;
    }
    free(item);
    return found;
}

/* A word as QEMU's options begin; NULL if it is none. */
static const char *option_name(const char *word)
{
    if (word[0] != '-' || word[1] == '\0')
        return NULL;
    return word[1] == '-' ? word + 2 : word + 1;
}

static bool is_on(const char *text)
{
    return strcmp(text, "on") == 0 || strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "y") == 0;
}

/* Replaces *to by the key's value, if the text has the key. */
static void take_key(char **to, const char *text, const char *implied, const char *key)
{
    char *value = run_key(text, implied, key);

    if (value == NULL)
        return;
    free(*to);
    *to = value;
}

/* --- Checks ------------------------------------------------------------------------------------------------------ */

/* Options under which the promise of this command, or the device, cannot be kept. */
static int refuse(const char *name)
{
    static const struct {
        const char *name, *why;
    } refused[] = {
        { "daemonize", "the VM would outlive this command, which has to end the devices with it; without -daemonize, "
                       "run 'outboard run' itself in the background or as a service" },
        { "incoming", "a VM that comes by migration leaves the state of vfio-user devices behind; start the VM here" },
        { "loadvm", "a snapshot does not have the state of vfio-user devices; start the VM without it" },
        { "mem-path", "memory made by it is private to QEMU; instead give -object "
                      "memory-backend-file,id=ram,mem-path=PATH,size=SIZE,share=on -machine memory-backend=ram" },
    };

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (strcmp(refused[i].name, name) == 0) {
            say("run: QEMU's -%s does not go with devices: %s", name, refused[i].why);
            return STATUS_USAGE;
        }
    }
    return 0;
}

/* Whether the backend -object `text` is one that others can map. */
static bool is_shared(const char *text)
{
    char *type = run_key(text, "qom-type", "qom-type");
    char *share = run_key(text, "qom-type", "share");
    bool shared = share != NULL ? is_on(share)
                                : type != NULL && (strcmp(type, "memory-backend-memfd") == 0 ||
                                                   strcmp(type, "memory-backend-shm") == 0); /* their default */

    free(share);
    free(type);
    return shared;
}

/* Checks the memory backend `id`, which `user` names. One that the command line does not define (-readconfig may) is
 * the user's to know. */
static int check_backend(char *const *argv, size_t argc, const char *id, const char *user)
{
    for (size_t i = 1; i + 1 < argc; i++) {
        const char *name = option_name(argv[i]);
        int status = 0;
        char *its;

        if (name == NULL || strcmp(name, "object") != 0)
            continue;
        its = run_key(argv[i + 1], "qom-type", "id");
        if (its != NULL && strcmp(its, id) == 0 && !is_shared(argv[i + 1])) {
            say("run: QEMU's -object '%s' is the guest's memory (%s), and is private to QEMU, so that no device can "
                "reach it: add share=on to it",
                argv[i + 1], user);
            status = STATUS_USAGE;
        }
        free(its);
        if (status != 0)
            return status;
    }
    return 0;
}

static int look_at(struct run *run, struct memory *memory, char *const *argv, size_t argc, size_t i)
{
    const char *name = option_name(argv[i]);
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    int status = name != NULL ? refuse(name) : 0;
    char *text;

    if (name == NULL || status != 0)
        return status;
    if (strcmp(name, "m") == 0) {
        take_key(&memory->size, value, "size", "size");
    } else if (strcmp(name, "machine") == 0 || strcmp(name, "M") == 0) {
        take_key(&memory->backend, value, "type", "memory-backend");
    } else if (strcmp(name, "numa") == 0) {
        text = run_key(value, "type", "memdev");
        if (text != NULL) {
            memory->numa = true;
            status = check_backend(argv, argc, text, "-numa memdev=");
            free(text);
        }
    } else if (strcmp(name, "run-with") == 0) {
        take_key(&run->owner, value, NULL, "user");
        if (run->owner != NULL)
            run->owner[strcspn(run->owner, ":")] = '\0'; /* it may be UID:GID */
    }
    return status;
}

/* --- What is added ----------------------------------------------------------------------------------------------- */

/* The size that -m means: its unit is MiB unless it says another. */
static bool parse_size(const char *text, uint64_t *size)
{
    static const char units[] = "bkmgtpe";
    char *end;
    double number = strtod(text, &end);
    const char *unit = *end != '\0' ? strchr(units, *end | 0x20) : strchr(units, 'm');

    if (end == text || unit == NULL || *unit == '\0' || (*end != '\0' && end[1] != '\0') || !(number >= 0))
        return false;
    for (; unit > units; unit--)
        number *= 1024;
    if (number >= 0x1p63)
        return false;
    *size = (uint64_t)number;
    if (*size == 0)
        *size = DEFAULT_MEMORY;        /* as QEMU takes -m 0 */
    *size = (*size + 8191) & ~8191ull; /* as QEMU rounds */
    return true;
}

static void add(struct run *run, char *word)
{
    run->qemu[run->qemu_count++] = word;
}

static int add_memory(struct run *run, const struct memory *memory)
{
    uint64_t size = DEFAULT_MEMORY;

    if (memory->size != NULL && !parse_size(memory->size, &size)) {
        say("run: QEMU's -m %s is not a size, such as 512M or 2G", memory->size);
        return STATUS_USAGE;
    }
    add(run, run_format("-object"));
    if (size % MIB == 0)
        add(run,
            run_format("memory-backend-memfd,id=" MEMORY_ID ",size=%lluM,share=on", (unsigned long long)(size / MIB)));
    else
        add(run, run_format("memory-backend-memfd,id=" MEMORY_ID ",size=%llu,share=on", (unsigned long long)size));
    add(run, run_format("-machine")); /* QEMU merges it with the user's own */
    add(run, run_format("memory-backend=" MEMORY_ID));
    return 0;
}

int run_qemu_prepare(struct run *run, char *const *argv, size_t argc)
{
    struct memory memory = { 0 };
    int status = 0;

    run->qemu = run_alloc(argc + 4 + OPTIONS_FOR_DEVICES * run->device_count + 1, sizeof(*run->qemu));
    for (size_t i = 0; i < argc; i++)
        add(run, argv[i]);
    run->given = argc;
    if (run->device_count == 0)
        return 0;
    for (size_t i = 1; status == 0 && i < argc; i++)
        status = look_at(run, &memory, argv, argc, i);
    if (status == 0 && memory.backend != NULL)
        status = check_backend(argv, argc, memory.backend, "-machine memory-backend=");
    if (status == 0 && memory.backend == NULL && !memory.numa)
        status = add_memory(run, &memory);
    free(memory.size);
    free(memory.backend);
    return status;
}

void run_qemu_add_devices(struct run *run)
{
    for (size_t i = 0; i < run->device_count; i++) {
        char *json = json_dumps(run->devices[i].properties, JSON_COMPACT | JSON_PRESERVE_ORDER);

        add(run, run_format("-device"));
        add(run, run_format("%s", json != NULL ? json : ""));
        free(json);
    }
}

void run_qemu_free(struct run *run)
{
    for (size_t i = run->given; i < run->qemu_count; i++)
        free(run->qemu[i]);
    free(run->qemu);
    free(run->owner);
}

/* --- Afterwards -------------------------------------------------------------------------------------------------- */

void run_qemu_explain(const struct run *run)
{
    char *const list_argv[] = { run->qemu[0], "-device", "help", NULL };
    char *const version_argv[] = { run->qemu[0], "--version", NULL };
    char *list, *version;
    int err;

    list = run_process_output(run->qemu[0], list_argv, &err);
    if (list != NULL && strstr(list, "\"vfio-user-pci\"") == NULL) {
        version = run_process_output(run->qemu[0], version_argv, &err);
        say("run: this QEMU has no device vfio-user-pci: version 10.1.1 or later, built with it, is needed; "
            "%s is: %.*s",
            run->qemu[0], version != NULL ? (int)strcspn(version, "\n") : 7, version != NULL ? version : "unknown");
        free(version);
    }
    free(list);
}
