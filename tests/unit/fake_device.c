/* The bench for devices; see fake_device.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "fake_device.h"

#define FAKE_AFTERS  16
#define FAKE_DMAS    8
#define FAKE_FDS     16
#define FAKE_OPTIONS 16
#define FAKE_TIMERS  64

struct ob_worker {
    struct ob_dev *dev;
};

struct ob_req {
    struct ob_dev *dev;
};

struct fake_after {
    void (*fn)(struct ob_dev *dev, uint64_t arg);
    uint64_t arg;
};

struct fake_fd {
    int fd;
    ob_ready_fn *ready;
    void *ctx;
};

struct ob_dev {
    struct ob_device_class cls;
    struct ob_worker control;
    char *options[FAKE_OPTIONS];
    uint8_t *state, *committed, *shared, *scratch;
    uint64_t timers[FAKE_TIMERS], committed_timers[FAKE_TIMERS];
    bool running, dead, in_transaction;
    enum fake_kill kill;
    bool irq, irq_next, irq_changed; /* the pin; what this transaction will set it to, and whether it will */
    unsigned irq_edges, log_lines;
    bool messages, bus_master;
    struct fake_after afters[FAKE_AFTERS];
    unsigned n_afters;
    int epoll;
    struct fake_fd fds[FAKE_FDS];
    enum fake_dma dma_mode;
    struct ob_dma *dmas[FAKE_DMAS];
    unsigned n_dmas;
    uint8_t memory[FAKE_MEMORY_SIZE];
};

static uint64_t fake_now = 1000000000;

static void __attribute__((noreturn, format(printf, 1, 2))) fake_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("fake device: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

static void *fake_alloc(size_t size)
{
    void *p = calloc(1, size ? size : 1);

    if (!p)
        fake_fail("no memory for %zu bytes", size);
    return p;
}

/* --- Transactions ------------------------------------------------------------------------------------------------ */

static void fake_begin(struct ob_dev *dev)
{
    if (dev->in_transaction)
        fake_fail("a callback within a callback");
    if (dev->dead)
        fake_fail("the process is dead");
    dev->in_transaction = true;
}

static void fake_undo(struct ob_dev *dev)
{
    memcpy(dev->state, dev->committed, dev->cls.state.size);
    memcpy(dev->timers, dev->committed_timers, sizeof(dev->timers));
    dev->n_afters = 0;
    dev->irq_changed = dev->in_transaction = false;
}

/* Commits, or undoes if err is one; then effects, each a transaction of its own. */
static void fake_end(struct ob_dev *dev, int err)
{
    struct fake_after afters[FAKE_AFTERS];
    unsigned n_afters, i;

    if (err < 0 || err == OB_LATER || dev->kill == FAKE_KILL_BEFORE_COMMIT) {
        dev->dead = dev->kill == FAKE_KILL_BEFORE_COMMIT;
        fake_undo(dev);
        return;
    }
    memcpy(dev->committed, dev->state, dev->cls.state.size);
    memcpy(dev->committed_timers, dev->timers, sizeof(dev->timers));
    n_afters = dev->n_afters;
    memcpy(afters, dev->afters, sizeof(afters));
    if (dev->kill == FAKE_KILL_AFTER_COMMIT) {
        dev->dead = true;
        fake_undo(dev);
        return;
    }
    /* Only the last level of a transaction shows: there is no instant in between. */
    if (dev->irq_changed) {
        dev->irq_edges += dev->irq_next && !dev->irq;
        dev->irq = dev->irq_next;
    }
    dev->n_afters = 0;
    dev->irq_changed = dev->in_transaction = false;
    for (i = 0; i < n_afters && !dev->dead; i++) {
        fake_begin(dev);
        afters[i].fn(dev, afters[i].arg);
        fake_end(dev, OB_DONE);
    }
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

static void fake_reset_values(struct ob_dev *dev)
{
    for (unsigned bar = 0; bar < 6; bar++) {
        const struct ob_area *area = dev->cls.bars[bar].areas;

        for (; area && area->size; area++)
            for (const struct ob_reg *reg = area->regs; reg && reg->name; reg++)
                for (unsigned i = 0; reg->stored && i < (reg->count ? reg->count : 1u); i++)
                    memcpy(dev->state + reg->state_off + i * reg->width, &reg->reset, reg->width);
    }
}

static void fake_parse_options(struct ob_dev *dev, const char *text)
{
    const struct ob_option *table = dev->cls.options;
    char *copy = strdup(text ? text : ""), *rest = copy, *pair;
    unsigned i;

    for (i = 0; table && table[i].name; i++)
        dev->options[i] = table[i].value ? strdup(table[i].value) : NULL;
    while ((pair = strsep(&rest, ","))) {
        char *value = strchr(pair, '=');

        if (!value)
            continue;
        *value++ = '\0';
        for (i = 0; table && table[i].name && strcmp(table[i].name, pair); i++)
            ;
        if (!table || !table[i].name)
            fake_fail("no option %s", pair);
        free(dev->options[i]);
        dev->options[i] = strdup(value);
    }
    free(copy);
}

static void fake_release(struct ob_dev *dev)
{
    for (unsigned i = 0; i < FAKE_OPTIONS; i++)
        free(dev->options[i]);
    close(dev->epoll);
    free(dev->state);
    free(dev->committed);
    free(dev->shared);
    free(dev->scratch);
    free(dev);
}

struct ob_dev *fake_new(const struct ob_device_class *cls, const char *options, int *err)
{
    struct ob_dev *dev = fake_alloc(sizeof(*dev));

    dev->cls = *cls;
    dev->control.dev = dev;
    dev->bus_master = true;
    dev->epoll = epoll_create1(EPOLL_CLOEXEC);
    dev->state = fake_alloc(cls->state.size);
    dev->committed = fake_alloc(cls->state.size);
    dev->shared = fake_alloc(cls->shared.size);
    dev->scratch = fake_alloc(cls->scratch_size);
    for (unsigned i = 0; i < FAKE_FDS; i++)
        dev->fds[i].fd = -1;
    fake_parse_options(dev, options);
    fake_reset_values(dev);
    fake_begin(dev);
    *err = cls->ops.open ? cls->ops.open(dev, OB_FRESH) : 0;
    if (*err < 0) {
        fake_release(dev);
        return NULL;
    }
    fake_end(dev, OB_DONE);
    return dev;
}

void fake_free(struct ob_dev *dev)
{
    if (dev->cls.ops.close)
        dev->cls.ops.close(dev);
    for (unsigned i = 0; i < FAKE_FDS; i++)
        if (dev->fds[i].fd >= 0)
            fake_fail("descriptor %d is still watched after close()", dev->fds[i].fd);
    fake_release(dev);
}

void fake_session_begin(struct ob_dev *dev)
{
    fake_begin(dev);
    dev->running = true;
    if (dev->cls.ops.run && dev->cls.ops.run(dev) < 0)
        fake_fail("ops.run refused");
    fake_end(dev, OB_DONE);
}

static void fake_request(struct ob_dev *dev, int (*fn)(struct ob_req *req, enum ob_reset kind), enum ob_reset kind)
{
    struct ob_req req = { dev };

    fake_begin(dev);
    int err = fn(&req, kind);

    if (err != OB_DONE)
        fake_fail("a request was not done at once: %d", err);
    fake_end(dev, err);
}

static int fake_quiesce(struct ob_req *req, enum ob_reset kind)
{
    return req->dev->cls.ops.quiesce ? req->dev->cls.ops.quiesce(req) : OB_DONE;
}

static int fake_do_reset(struct ob_req *req, enum ob_reset kind)
{
    fake_reset_values(req->dev);
    return req->dev->cls.ops.reset ? req->dev->cls.ops.reset(req, kind) : OB_DONE;
}

void fake_session_end(struct ob_dev *dev)
{
    fake_request(dev, fake_quiesce, OB_RESET_DEVICE);
    dev->running = false;
    while (dev->n_dmas)
        fake_dma_answer(dev, -ENOTCONN);
}

void fake_reset(struct ob_dev *dev, enum ob_reset kind)
{
    fake_request(dev, fake_do_reset, kind);
}

void fake_kill_next(struct ob_dev *dev, enum fake_kill kill)
{
    dev->kill = kill;
}

bool fake_dead(const struct ob_dev *dev)
{
    return dev->dead;
}

/* ops.close() stands for the kernel, which closes what a dead process held; what it did to memory is undone. */
void fake_restart(struct ob_dev *dev)
{
    uint8_t *shared = fake_alloc(dev->cls.shared.size);

    memcpy(shared, dev->shared, dev->cls.shared.size);
    dev->dead = dev->irq = false;
    dev->kill = FAKE_KILL_NO;
    dev->n_dmas = 0;
    if (dev->cls.ops.close)
        dev->cls.ops.close(dev);
    fake_undo(dev);
    memcpy(dev->shared, shared, dev->cls.shared.size);
    free(shared);
    memset(dev->scratch, 0, dev->cls.scratch_size);
    fake_begin(dev);
    if (dev->cls.ops.open && dev->cls.ops.open(dev, OB_CRASHED) < 0)
        fake_fail("ops.open refused the memory of a crash");
    fake_end(dev, OB_DONE);
    fake_session_begin(dev);
}

/* --- Accesses ---------------------------------------------------------------------------------------------------- */

static uint64_t fake_ones(unsigned bytes)
{
    return bytes >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * bytes)) - 1;
}

/* Bytes [from, to) of a register; *val holds or gets them at their place in the register. */
static int fake_reg(struct ob_req *req, const struct ob_reg *reg, unsigned index, unsigned from, unsigned to,
                    bool write, uint64_t *val)
{
    uint8_t *place = req->dev->state + reg->state_off + index * reg->width;
    uint64_t mask = fake_ones(to) & ~fake_ones(from), stored = 0;
    int err = OB_DONE;

    if (reg->stored)
        memcpy(&stored, place, reg->width);
    if (write) {
        stored = (stored & ~(reg->rw & mask)) | (*val & reg->rw & mask);
        stored &= ~(*val & reg->w1c & mask);
        if (reg->stored)
            memcpy(place, &stored, reg->width);
        return reg->write ? reg->write(req, reg, index, *val & mask, mask) : OB_DONE;
    }
    *val = stored;
    if (reg->read)
        err = reg->read(req, reg, index, val);
    if (reg->stored && (reg->rc & mask)) {
        memcpy(&stored, place, reg->width);
        stored &= ~(reg->rc & mask);
        memcpy(place, &stored, reg->width);
    }
    return err;
}

static const struct ob_reg *fake_find(const struct ob_reg *reg, uint64_t off, unsigned *index)
{
    for (; reg->name; reg++)
        for (*index = 0; *index < (reg->count ? reg->count : 1u); (*index)++) {
            uint64_t at = reg->off + (uint64_t)*index * reg->stride;

            if (off >= at && off < at + reg->width)
                return reg;
        }
    return NULL;
}

static int fake_regs(struct ob_req *req, const struct ob_area *area, uint64_t off, unsigned len, bool write,
                     uint8_t *data)
{
    unsigned done = 0, index;
    int err = OB_DONE;

    while (done < len && err == OB_DONE) {
        const struct ob_reg *reg = fake_find(area->regs, off + done, &index);

        if (!reg || len < reg->min_access || len > (reg->max_access ? reg->max_access : 8)) {
            if (!write)
                data[done] = 0xff;
            done++;
            continue;
        }
        unsigned from = (unsigned)(off + done - reg->off - (uint64_t)index * reg->stride), n = reg->width - from;
        uint64_t val = 0;

        if (n > len - done)
            n = len - done;
        if (write)
            memcpy((uint8_t *)&val + from, data + done, n);
        err = fake_reg(req, reg, index, from, from + n, write, &val);
        if (!write)
            memcpy(data + done, (uint8_t *)&val + from, n);
        done += n;
    }
    return err;
}

static void fake_access(struct ob_dev *dev, unsigned bar, uint64_t off, unsigned len, bool write, uint8_t *data)
{
    struct ob_req req = { dev };
    int err = OB_DONE;

    fake_begin(dev);
    for (const struct ob_area *area = dev->cls.bars[bar].areas; area && area->size; area++)
        if (off >= area->off && off + len <= area->off + area->size) {
            if (!area->regs)
                fake_fail("an access to an area without registers");
            err = fake_regs(&req, area, off - area->off, len, write, data);
        }
    fake_end(dev, err);
    if (err != OB_DONE)
        fake_fail("access to 0x%llx of BAR %u: %d", (unsigned long long)off, bar, err);
}

uint64_t fake_read(struct ob_dev *dev, unsigned bar, uint64_t off, unsigned len)
{
    uint64_t val = 0;

    fake_access(dev, bar, off, len, false, (uint8_t *)&val);
    return val;
}

void fake_write(struct ob_dev *dev, unsigned bar, uint64_t off, unsigned len, uint64_t val)
{
    fake_access(dev, bar, off, len, true, (uint8_t *)&val);
}

/* --- What tests look at ------------------------------------------------------------------------------------------ */

bool fake_irq(const struct ob_dev *dev)
{
    return dev->irq;
}

unsigned fake_irq_edges(const struct ob_dev *dev)
{
    return dev->irq_edges;
}

void fake_use_messages(struct ob_dev *dev, bool on)
{
    dev->messages = on;
}

void fake_advance(struct ob_dev *dev, uint64_t ns)
{
    fake_now += ns;
    for (unsigned id = 0; id < dev->cls.timers && !dev->dead; id++)
        if (dev->committed_timers[id] && dev->committed_timers[id] <= fake_now) {
            fake_begin(dev);
            dev->timers[id] = 0;
            dev->cls.ops.timer(dev, id);
            fake_end(dev, OB_DONE);
        }
}

uint64_t fake_deadline(const struct ob_dev *dev, unsigned id)
{
    return dev->committed_timers[id];
}

int fake_poll(struct ob_dev *dev, int timeout_ms)
{
    struct epoll_event events[FAKE_FDS];
    int n = epoll_wait(dev->epoll, events, FAKE_FDS, timeout_ms);

    for (int i = 0; i < n && !dev->dead; i++)
        for (unsigned j = 0; j < FAKE_FDS; j++)
            if (dev->fds[j].fd == events[i].data.fd) {
                struct fake_fd fd = dev->fds[j];

                fake_begin(dev);
                fd.ready(&dev->control, fd.fd, events[i].events, fd.ctx);
                fake_end(dev, OB_DONE);
                break;
            }
    return n;
}

uint8_t *fake_memory(struct ob_dev *dev)
{
    return dev->memory;
}

void fake_dma_mode(struct ob_dev *dev, enum fake_dma mode)
{
    dev->dma_mode = mode;
}

void fake_bus_master(struct ob_dev *dev, bool on)
{
    dev->bus_master = on;
}

unsigned fake_dma_waiting(const struct ob_dev *dev)
{
    return dev->n_dmas;
}

unsigned fake_log_lines(const struct ob_dev *dev)
{
    return dev->log_lines;
}

static int fake_copy(struct ob_dev *dev, const struct ob_dma *dma)
{
    uint64_t off = dma->iova - FAKE_MEMORY_BASE;

    if (!dev->bus_master)
        return -EACCES;
    if (dma->iova < FAKE_MEMORY_BASE || off > FAKE_MEMORY_SIZE || dma->len > FAKE_MEMORY_SIZE - off)
        return -EFAULT;
    if (dma->to_guest)
        memcpy(dev->memory + off, dma->buf, dma->len);
    else
        memcpy(dma->buf, dev->memory + off, dma->len);
    return OB_DONE;
}

void fake_dma_answer(struct ob_dev *dev, int err)
{
    struct ob_dma *dma = dev->dmas[0];

    if (!dev->n_dmas)
        fake_fail("no DMA waits");
    memmove(dev->dmas, dev->dmas + 1, --dev->n_dmas * sizeof(dev->dmas[0]));
    if (!err)
        err = fake_copy(dev, dma);
    fake_begin(dev);
    dma->done(dma, err);
    fake_end(dev, OB_DONE);
}

/* --- <outboard/device.h> ----------------------------------------------------------------------------------------- */

static const char *fake_option(const struct ob_dev *dev, const char *name)
{
    for (unsigned i = 0; dev->cls.options && dev->cls.options[i].name; i++)
        if (!strcmp(dev->cls.options[i].name, name))
            return dev->options[i];
    fake_fail("the class has no option %s", name);
}

const char *ob_option_string(const struct ob_dev *dev, const char *name)
{
    return fake_option(dev, name);
}

uint64_t ob_option_number(const struct ob_dev *dev, const char *name)
{
    return strtoull(fake_option(dev, name), NULL, 0);
}

bool ob_option_bool(const struct ob_dev *dev, const char *name)
{
    return !strcmp(fake_option(dev, name), "on");
}

void *ob_state(struct ob_dev *dev)
{
    return dev->state;
}

void *ob_shared(struct ob_dev *dev)
{
    return dev->shared;
}

void *ob_scratch(struct ob_dev *dev)
{
    return dev->scratch;
}

struct ob_dev *ob_req_dev(struct ob_req *req)
{
    return req->dev;
}

void ob_after(struct ob_dev *dev, void (*fn)(struct ob_dev *dev, uint64_t arg), uint64_t arg)
{
    if (dev->n_afters == FAKE_AFTERS)
        fake_fail("more than %d effects of one callback", FAKE_AFTERS);
    dev->afters[dev->n_afters++] = (struct fake_after){ fn, arg };
}

void ob_timer(struct ob_dev *dev, unsigned id, uint64_t abs_ns)
{
    if (id >= dev->cls.timers)
        fake_fail("timer %u of %u", id, dev->cls.timers);
    dev->timers[id] = abs_ns;
}

uint64_t ob_now(void)
{
    return fake_now;
}

void ob_log(const struct ob_dev *dev, const char *format, ...)
{
    va_list args;

    ((struct ob_dev *)dev)->log_lines++;
    va_start(args, format);
    fprintf(stderr, "# %s: ", dev->cls.name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

struct ob_worker *ob_control(struct ob_dev *dev)
{
    return &dev->control;
}

struct ob_dev *ob_worker_dev(struct ob_worker *worker)
{
    return worker->dev;
}

int ob_worker_fd(struct ob_worker *worker, int fd, uint32_t events, ob_ready_fn *ready, void *ctx)
{
    struct ob_dev *dev = worker->dev;
    struct epoll_event event = { .events = events, .data.fd = fd };
    struct fake_fd *slot = NULL, *empty = NULL;

    for (unsigned i = 0; i < FAKE_FDS; i++) {
        if (dev->fds[i].fd == fd)
            slot = &dev->fds[i];
        else if (dev->fds[i].fd < 0)
            empty = &dev->fds[i];
    }
    if (!events) {
        if (!slot)
            return -ENOENT;
        slot->fd = -1;
        return epoll_ctl(dev->epoll, EPOLL_CTL_DEL, fd, NULL) ? -errno : 0;
    }
    if (!slot && !empty)
        fake_fail("more than %d descriptors", FAKE_FDS);
    if (epoll_ctl(dev->epoll, slot ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event))
        return -errno;
    *(slot ? slot : empty) = (struct fake_fd){ fd, ready, ctx };
    return 0;
}

int ob_dma_copy(struct ob_worker *worker, struct ob_dma *dma)
{
    struct ob_dev *dev = worker->dev;

    if (dev->dma_mode == FAKE_DMA_DIRECT || !dev->bus_master)
        return fake_copy(dev, dma);
    if (dev->n_dmas == FAKE_DMAS)
        fake_fail("more than %d copies under way", FAKE_DMAS);
    dev->dmas[dev->n_dmas++] = dma;
    return OB_LATER;
}

void ob_irq_level(struct ob_dev *dev, unsigned vector, bool on)
{
    if (vector != 0)
        fake_fail("vector %u", vector);
    dev->irq_next = on;
    dev->irq_changed = true;
}

bool ob_irq_is_message(struct ob_dev *dev)
{
    return dev->messages;
}
