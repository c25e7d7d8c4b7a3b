/* tools/run_device.c: the devices of `outboard run`: what --device says, what the device says of itself, its socket.
 *
 * The socket has no public path. It is bound in a folder that only we can enter, listened on, kept by an O_PATH
 * descriptor, and both are removed at once; QEMU inherits the descriptor and connects to /proc/self/fd/NUMBER, which
 * reaches the socket file although it has no name any more. Only who holds the descriptor can do that, so the file's
 * permissions are open: QEMU may have become another user (-run-with user=) when a device is added later.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* QEMU waits 5 s for a reply (x-msg-timeout); a device that may need almost as long gets this much more. */
#define QEMU_TIMEOUT_MS 5000
#define MARGIN_MS       500

/* --- --device ----------------------------------------------------------------------------------------------------- */

/* JSON's type of a property, as QEMU wants it: of the PCI devices' properties, these are texts whatever they look like;
 * of others, what looks like a number or a switch is one. */
static json_t *property_value(const char *key, const char *text)
{
    static const char *const texts[] = { "id", "bus", "addr", "romfile", "failover_pair_id", NULL };
    long long number;
    char *end;

    for (const char *const *name = texts; *name != NULL; name++)
        if (strcmp(*name, key) == 0)
            return json_string(text);
    if (strcmp(text, "on") == 0 || strcmp(text, "true") == 0)
        return json_true();
    if (strcmp(text, "off") == 0 || strcmp(text, "false") == 0)
        return json_false();
    errno = 0;
    number = strtoll(text, &end, 0);
    if (*text != '\0' && *end == '\0' && errno == 0)
        return json_integer(number);
    return json_string(text);
}

/* qemu.KEY=VALUE, without the "qemu."; takes double commas for single ones. */
static int add_property(struct run_device *device, char *item)
{
    char *value = strchr(item, '=');
    char *to = item;

    for (const char *from = item; *from != '\0'; from++) {
        if (from[0] == ',' && from[1] == ',')
            from++;
        *to++ = *from;
    }
    *to = '\0';
    if (value == NULL || value == item) {
        say("run: device %s: 'qemu.%s' is not qemu.KEY=VALUE", device->label, item);
        return STATUS_USAGE;
    }
    *value++ = '\0';
    if (strcmp(item, "driver") == 0 || strcmp(item, "socket") == 0) {
        say("run: device %s: 'qemu.%s' is set by this command itself: leave it out", device->label, item);
        return STATUS_USAGE;
    }
    if (json_object_get(device->properties, item) != NULL) {
        say("run: device %s: 'qemu.%s' is given twice: leave one out", device->label, item);
        return STATUS_USAGE;
    }
    if (json_object_set_new(device->properties, item, property_value(item, value)) != 0) {
        say("run: device %s: 'qemu.%s=%s' is not UTF-8, or out of memory", device->label, item, value);
        return STATUS_USAGE;
    }
    return 0;
}

/* The end of an item: a comma that is not one of a pair, or the end of the text. */
static char *item_end(char *item)
{
    while (*item != '\0' && (item[0] != ',' || item[1] == ','))
        item += item[0] == ',' ? 2 : 1;
    return item;
}

static int parse_items(struct run_device *device, char *items)
{
    for (char *item = items, *next; item != NULL; item = next) {
        char *end = item_end(item);
        int status = 0;

        next = *end == ',' ? end + 1 : NULL;
        *end = '\0';
        if (strncmp(item, "qemu.", 5) == 0) {
            status = add_property(device, item + 5);
        } else {
            char *joined = run_format("%s%s%s", device->options != NULL ? device->options : "",
                                      device->options != NULL ? "," : "", item);

            free(device->options);
            device->options = joined;
        }
        if (status != 0)
            return status;
    }
    return 0;
}

/* "edu"; the second of the name is "edu#2". */
static char *make_label(const struct run *run, const struct run_device *device)
{
    const char *slash = strrchr(device->name, '/');
    const char *base = slash != NULL && slash[1] != '\0' ? slash + 1 : device->name;
    unsigned same = 1;

    for (const struct run_device *other = run->devices; other < device; other++)
        same += strcmp(other->name, device->name) == 0;
    return same == 1 ? run_format("%s", base) : run_format("%s#%u", base, same);
}

static int parse_device(struct run *run, struct run_device *device, const char *text)
{
    size_t len = strcspn(text, ",");
    int status = 0;
    char *items;

    device->name = run_format("%.*s", (int)len, text);
    device->label = make_label(run, device);
    device->properties = json_object();
    if (strchr(device->name, '/') == NULL) {
        device->cls = builtin_find(device->name, len);
        if (device->cls == NULL) {
            builtin_unknown("run", device->name, len, "a device program is given by a path with a slash");
            return STATUS_USAGE;
        }
    }
    if (text[len] == '\0')
        return 0;
    items = run_format("%s", text + len + 1);
    status = parse_items(device, items);
    free(items);
    return status;
}

int run_devices_parse(struct run *run, char *const *texts, size_t count)
{
    int status = 0;

    run->devices = run_alloc(count + 1, sizeof(*run->devices));
    run->device_count = count;
    for (size_t i = 0; i < count; i++) {
        run->devices[i].socket = run->devices[i].listener = run->devices[i].ready = -1;
        run->devices[i].process.pidfd = -1;
    }
    for (size_t i = 0; status == 0 && i < count; i++)
        status = parse_device(run, &run->devices[i], texts[i]);
    return status;
}

void run_devices_free(struct run *run)
{
    for (size_t i = 0; i < run->device_count; i++) {
        struct run_device *device = &run->devices[i];

        for (size_t j = 0; device->argv[j] != NULL; j++)
            free(device->argv[j]);
        json_decref(device->properties);
        free(device->options);
        free(device->label);
        free(device->name);
    }
    free(run->devices);
}

/* --- What the device says of itself ------------------------------------------------------------------------------ */

/* Its JSON description. The conventions do not ask every program for one: a device without is taken as it is. NULL:
 * none; *status is an exit status if it is not even a program. */
static json_t *capabilities(const struct run_device *device, int *status)
{
    char *const argv[] = { device->name, "--print-capabilities", NULL };
    json_t *object;
    char *text;
    int err = 0;

    text = device->cls != NULL ? ob_class_describe(device->cls) : run_process_output(device->name, argv, &err);
    if (err == -ETIMEDOUT || err == -EFBIG) {
        say("run: device %s: %s --print-capabilities %s: a device program that does not have this option has to refuse "
            "it",
            device->label, device->name, err == -EFBIG ? "prints too much" : "does not end");
        *status = STATUS_FAILED;
        return NULL;
    }
    if (err < 0) {
        say("run: device %s: cannot execute %s: %s", device->label, device->name, strerror(-err));
        *status = STATUS_FAILED;
        return NULL;
    }
    object = text != NULL ? json_loads(text, 0, NULL) : NULL;
    free(text);
    return object;
}

static bool has_feature(const json_t *object, const char *name)
{
    const json_t *feature;
    size_t i;

    json_array_foreach(json_object_get(object, "features"), i,
                       feature) if (json_is_string(feature) &&
                                    strcmp(json_string_value(feature), name) == 0) return true;
    return false;
}

/* QEMU never recovers from a reply that comes after it gave up (it takes the late reply for the next one's), so it has
 * to wait longer than the device may take. */
static void set_timeout(struct run_device *device, const json_t *object)
{
    json_int_t reply = json_integer_value(json_object_get(object, "max-reply-ms"));

    if (reply > QEMU_TIMEOUT_MS - MARGIN_MS && reply < INT32_MAX &&
        json_object_get(device->properties, "x-msg-timeout") == NULL)
        json_object_set_new(device->properties, "x-msg-timeout", json_integer(reply + 2 * MARGIN_MS));
}

static void make_argv(const struct run *run, struct run_device *device)
{
    size_t n = 0;

    if (device->cls != NULL) {
        device->argv[n++] = run_format("outboard");
        device->argv[n++] = run_format("serve");
    }
    device->argv[n++] = run_format("%s", device->name);
    device->argv[n++] = run_format("--fd=%d", RUN_LISTENER);
    if (device->takes_ready)
        device->argv[n++] = run_format("--ready-fd=%d", RUN_READY);
    if (device->takes_owner && run->owner != NULL)
        device->argv[n++] = run_format("--socket-owner=%s", run->owner);
    if (device->options != NULL)
        device->argv[n++] = run_format("--option=%s", device->options);
    device->argv[n] = NULL;
}

/* Takes the lowest number from RUN_FIRST_NUMBER on that neither the user has open (such a one is for QEMU, and stays)
 * nor a device before has: at once, so that no descriptor of ours gets it. */
static int reserve_number(struct run_device *device)
{
    int null = open("/dev/null", O_PATH | O_CLOEXEC);

    if (null >= 0)
        device->socket = fcntl(null, F_DUPFD_CLOEXEC, RUN_FIRST_NUMBER);
    if (device->socket < 0) {
        say("run: device %s: no descriptor for its socket: %s; raise the limit of open files (ulimit -n)",
            device->label, strerror(errno));
        return STATUS_FAILED;
    }
    close(null);
    return 0;
}

/* Turns what qemu.KEY gave into the whole object of -device. */
static int make_properties(struct run_device *device)
{
    char path[64];
    json_t *all;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", device->socket);
    all = json_pack("{s:s, s:{s:s, s:s}}", "driver", "vfio-user-pci", "socket", "type", "unix", "path", path);
    if (all == NULL || json_object_update(all, device->properties) != 0) {
        json_decref(all);
        say("run: out of memory");
        return STATUS_FAILED;
    }
    json_decref(device->properties);
    device->properties = all;
    return 0;
}

int run_devices_prepare(struct run *run)
{
    int status = 0;

    for (size_t i = 0; status == 0 && i < run->device_count; i++) {
        struct run_device *device = &run->devices[i];
        json_t *object = capabilities(device, &status);

        if (status != 0)
            break;
        device->takes_ready = has_feature(object, "ready-fd");
        device->takes_owner = has_feature(object, "socket-owner");
        make_argv(run, device);
        set_timeout(device, object);
        json_decref(object);
        status = reserve_number(device);
        if (status == 0)
            status = make_properties(device);
    }
    return status;
}

/* --- Sockets ----------------------------------------------------------------------------------------------------- */

/* Binds through the folder's descriptor: its path may be longer than a socket's address. */
static int bind_in(int folder, int listener)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/s", folder);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    return 0;
}

static int listen_in(int folder, struct run_device *device)
{
    int err, path;

    device->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (device->listener < 0)
        return -errno;
    err = bind_in(folder, device->listener);
    if (err < 0)
        return err;
    if (fchmodat(folder, "s", 0666, 0) < 0 || listen(device->listener, SOMAXCONN) < 0)
        err = -errno;
    path = openat(folder, "s", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (path < 0)
        err = -errno;
    if (unlinkat(folder, "s", 0) < 0)
        err = -errno;
    if (err == 0 && dup3(path, device->socket, O_CLOEXEC) < 0) /* in place of what reserved the number */
        err = -errno;
    if (path >= 0)
        close(path);
    return err;
}

int run_devices_listen(struct run *run)
{
    const char *base = getenv("TMPDIR");
    char *path = run_format("%s/outboard-XXXXXX", base != NULL && *base != '\0' ? base : "/tmp");
    int folder = -1, err = 0;

    if (mkdtemp(path) == NULL) { /* 0700 */
        say("run: cannot make a folder in %s: %s; set TMPDIR to where one can be made", base != NULL ? base : "/tmp",
            strerror(errno));
        free(path);
        return STATUS_FAILED;
    }
    folder = open(path, O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        err = -errno;
    for (size_t i = 0; err == 0 && i < run->device_count; i++)
        err = listen_in(folder, &run->devices[i]);
    if (folder >= 0)
        close(folder);
    if (rmdir(path) < 0 && err == 0)
        err = -errno;
    if (err < 0)
        say("run: cannot make the sockets of the devices in %s: %s", path, strerror(-err));
    free(path);
    return err < 0 ? STATUS_FAILED : 0;
}
