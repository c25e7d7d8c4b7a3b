/* Makes and frees a device. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device/migrate.h"

void ob_log(const struct ob_dev *dev, const char *format, ...)
{
    char line[1024];
    int n = snprintf(line, sizeof(line), "outboard: %s: ", dev->cls.name ? dev->cls.name : "?");
    va_list args;

    va_start(args, format);
    n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, args);
    va_end(args);
    if (n > (int)sizeof(line) - 2)
        n = sizeof(line) - 2;
    line[n++] = '\n';
    /* One write, so that lines of several processes stay whole. Standard error may be gone: nothing to be done. */
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)n);
    (void)ignored;
}

/* --- Memory that outlives the process ---------------------------------------------------------------------------- */

/* Clients map it, so it cannot be resized under us by anyone. */
static int make_bars_file(struct ob_dev *dev)
{
    int fd = memfd_create("outboard-bars", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)dev->bars_size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    dev->bars_fd = fd;
    return 0;
}

static int open_bars(struct ob_dev *dev, int fd)
{
    struct stat st;

    if (dev->bars_size == 0)
        return fd < 0 ? 0 : -EINVAL;
    if (fd < 0) {
        int err = make_bars_file(dev);
        if (err)
            return err;
    } else if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != dev->bars_size) {
        return -EINVAL;
    }
    void *p = mmap(NULL, dev->bars_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd < 0 ? dev->bars_fd : fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    dev->bars_map = p;
    return 0;
}

static int open_vault(struct ob_dev *dev, int fd, size_t ram, struct ob_position *position)
{
    struct ob_vault_layout layout = {
        .part = { [OB_PART_STATE] = dev->cls.state.size,
                  [OB_PART_CONFIG] = dev->layout->size,
                  [OB_PART_TIMERS] = dev->cls.timers * sizeof(uint64_t),
                  [OB_PART_BINDINGS] = ob_bindings_size(dev),
                  [OB_PART_MIGRATION] = ob_migration_part_size() },
        .signals = dev->vectors + OB_SIGNAL_EVENT + dev->n_events,
        .irqs = ob_irqs_state_size(dev->layout),
        .maps = ob_maps_size(),
        .shared = dev->cls.shared.size,
        .ram = ram,
        .migration = ob_migration_area_size(dev),
        .hash = ob_shape_hash(dev),
    };

    return ob_vault_open(&dev->vault, fd, &layout, position);
}

/* --- Making one -------------------------------------------------------------------------------------------------- */

static int take_class(struct ob_dev *dev, const struct ob_device_class *cls)
{
    if (cls->abi != OB_ABI || cls->class_size != sizeof(*cls)) {
        dev->cls.name = "class";
        ob_log(dev, "it was built for version %u of <outboard/device.h>, this library has %u: build it again", cls->abi,
               OB_ABI);
        return -EINVAL;
    }
    dev->cls = *cls;
    if (!cls->name || !*cls->name) {
        ob_log(dev, "the class is wrong: it has no name");
        return -EINVAL;
    }
    /* Before ops.configure, which may build there what it puts into the class. */
    dev->scratch = calloc(1, cls->scratch_size + (size_t)1);
    if (!dev->scratch) {
        ob_log(dev, "no memory for %u bytes of scratch", cls->scratch_size);
        return -ENOMEM;
    }
    return 0;
}

static int configure(struct ob_dev *dev, const char *options)
{
    char why[OB_OPTIONS_WHY];
    int err = ob_options_parse(dev->cls.options, options, &dev->options, why, sizeof(why));

    if (err) {
        ob_log(dev, "%s", why);
        return err;
    }
    err = dev->cls.ops.configure ? dev->cls.ops.configure(dev) : 0;
    if (err < 0)
        ob_log(dev, "it cannot be configured: %s", strerror(-err));
    return err < 0 ? err : 0;
}

static int make_parts(struct ob_dev *dev, const struct ob_lifeline *life, struct ob_position *position)
{
    size_t ram;
    int err = ob_shape_check(dev, &ram);

    if (err)
        return err;
    err = open_bars(dev, life->bars);
    if (err) {
        ob_log(dev, "BAR memory: %s", strerror(-err));
        return err;
    }
    err = open_vault(dev, life->vault, ram, position);
    if (err) {
        ob_log(dev, "the vault: %s%s", strerror(-err),
               life->vault >= 0 ? ": it belongs to another device, or to another version of this one" : "");
        return err;
    }
    err = ob_session_init(&dev->session, life->journal, position, &ob_back_ops, dev);
    if (err) {
        ob_log(dev, "the journal: %s", strerror(-err));
        return err;
    }
    ob_holder_init(&dev->session.holder, life->holder);
    dev->req = ob_req_new(dev);
    err = dev->req ? ob_doorbells_open(dev) : -ENOMEM;
    if (!err)
        err = ob_irqs_new(dev->layout, dev->vault.irqs, &dev->irqs);
    if (!err)
        err = ob_maps_init(dev);
    if (!err)
        err = ob_control_init(dev);
    if (!err)
        err = ob_timers_init(dev);
    if (err)
        ob_log(dev, "it cannot be made: %s", strerror(-err));
    return err;
}

static void first_state(struct ob_dev *dev)
{
    ob_pci_config_reset(dev->layout, ob_vault_part(&dev->vault, OB_PART_CONFIG));
    ob_registers_reset(dev);
    dev->vault.dirty[OB_PART_CONFIG] = true;
    dev->vault.reset_irqs = true;
    ob_migrate_first(dev);
}

static int open_class(struct ob_dev *dev, enum ob_origin origin)
{
    int err = 0;

    if (origin == OB_FRESH)
        first_state(dev);
    else
        ob_migrate_restore(dev);
    dev->config_changed = true;
    ob_transaction_begin(dev);
    dev->starting = true;
    if (dev->cls.ops.open)
        err = dev->cls.ops.open(dev, origin);
    if (err < 0) {
        dev->depth--;
        ob_log(dev, "it cannot be opened: %s", strerror(-err));
        return err;
    }
    dev->opened = true;
    ob_transaction_end(dev);
    if (dev->vault.has_intents)
        ob_dev_commit(
            dev); /* what is left for a predecessor's client: without what is signalled, which workers change */
    ob_workers_release(dev);
    return 0;
}

int ob_dev_new(const struct ob_device_class *cls, const char *options, const struct ob_lifeline *lifeline,
               struct ob_dev **out)
{
    struct ob_lifeline life = OB_LIFELINE_NONE;
    struct ob_position position;
    struct ob_dev *dev;

    if (lifeline)
        life = *lifeline;
    if (posix_memalign((void **)&dev, _Alignof(struct ob_dev), sizeof(*dev)) != 0) {
        fprintf(stderr, "outboard: no memory for a device\n");
        return -ENOMEM;
    }
    memset(dev, 0, sizeof(*dev));
    pthread_mutex_init(&dev->lock, NULL);
    dev->control_thread = pthread_self();
    dev->bars_fd = dev->vault.fd = dev->session.fd = dev->session.journal.fd = dev->session.holder.socket = -1;
    dev->control.wake = dev->control.epoll = dev->timer_source.fd = -1;
    int err = take_class(dev, cls);
    if (!err)
        err = configure(dev, options);
    if (!err)
        err = make_parts(dev, &life, &position);
    if (!err) {
        dev->resuming = ob_vault_used(&dev->vault);
        err = open_class(dev, dev->resuming ? OB_CRASHED : OB_FRESH);
    }
    if (err) {
        /* What was given stays the caller's. */
        if (life.vault >= 0)
            dev->vault.fd = -1;
        if (life.journal >= 0)
            dev->session.journal.fd = -1;
        if (life.holder >= 0)
            dev->session.holder.socket = -1;
        ob_dev_free(dev);
        return err;
    }
    if (life.bars >= 0)
        dev->bars_fd = life.bars;
    *out = dev;
    return 0;
}

/* --- Freeing it -------------------------------------------------------------------------------------------------- */

static void end_session(struct ob_dev *dev)
{
    dev->control_thread = pthread_self();
    dev->only_one = true; /* nobody is to be let in any more */
    if (dev->session.fd >= 0)
        ob_client_gone(dev);
    /* A device may need time to become quiet; its deadline bounds it. */
    uint64_t until = ob_now() + OB_DEFAULT_REPLY_MS * UINT64_C(1000000);
    while (dev->phase == OB_PHASE_QUIESCING || dev->phase == OB_PHASE_DRAINING) {
        dev->failure = 0;
        if (ob_now() > until || ob_server_run(dev, 100) < 0)
            break;
    }
}

void ob_dev_free(struct ob_dev *dev)
{
    if (!dev)
        return;
    if (dev->opened)
        end_session(dev);
    ob_workers_stop(dev);
    if (dev->opened && dev->cls.ops.close)
        dev->cls.ops.close(dev);
    ob_answers_take(dev); /* the last ones, to requests that nobody waits for */
    if (dev->listening)
        ob_listener_close(&dev->listener);
    if (dev->control.reader.epoch)
        (void)ob_grace_over(dev); /* all of it: no worker is left */
    if (dev->session.journal.header)
        ob_session_free(&dev->session);
    ob_control_close(dev);
    ob_doorbells_close(dev);
    ob_memory_free(dev->memory);
    if (dev->irqs)
        ob_irqs_free(dev->irqs);
    ob_vault_close(&dev->vault);
    if (dev->bars_map)
        munmap(dev->bars_map, dev->bars_size);
    if (dev->bars_fd >= 0)
        close(dev->bars_fd);
    if (dev->timer_source.fd >= 0)
        close(dev->timer_source.fd);
    ob_shape_free(dev);
    ob_options_free(dev->options);
    free(dev->map_entry);
    free(dev->free_entries);
    free(dev->after);
    free(dev->scratch);
    free(dev->req);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

/* --- What a class sees ------------------------------------------------------------------------------------------- */

struct ob_device_class *ob_shape(struct ob_dev *dev)
{
    return &dev->cls;
}

void *ob_state(struct ob_dev *dev)
{
    return ob_vault_part(&dev->vault, OB_PART_STATE);
}

void *ob_shared(struct ob_dev *dev)
{
    return dev->vault.shared;
}

void *ob_scratch(struct ob_dev *dev)
{
    return dev->scratch;
}

volatile void *ob_bar_ram(struct ob_dev *dev, unsigned bar, uint64_t off)
{
    const struct ob_space *space = ob_space(dev, bar);

    for (unsigned i = 0; space && i < space->n_areas; i++) {
        const struct ob_area *a = &space->areas[i];
        if (!(a->flags & OB_AREA_RAM) || off < a->off || off - a->off >= a->size)
            continue;
        uint8_t *base = a->flags & OB_AREA_MMAP ? dev->bars_map : dev->vault.ram;
        return base + space->ram_off[i] + (off - a->off);
    }
    return NULL;
}

const char *ob_option_string(const struct ob_dev *dev, const char *name)
{
    return ob_options_string(dev->options, name);
}

uint64_t ob_option_number(const struct ob_dev *dev, const char *name)
{
    return ob_options_number(dev->options, name);
}

bool ob_option_bool(const struct ob_dev *dev, const char *name)
{
    return ob_options_bool(dev->options, name);
}
