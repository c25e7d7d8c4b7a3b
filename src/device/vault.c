/* Makes, takes over and commits the vault; see vault.h. */
#include "device/vault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "session/steps.h"

#define VAULT_MAGIC 0x32304c545641424fULL /* "OBAVTL02" */
#define PAGE        4096

static size_t align_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

/* Where everything lies. Returns the size of the whole. */
static size_t place(struct ob_vault *v, const struct ob_vault_layout *layout, size_t at[6], size_t *slot_size)
{
    size_t off = 0;

    v->words = (layout->signals + 63) / 64;
    for (int i = 0; i < OB_PARTS; i++) {
        v->part_off[i] = off;
        v->part_size[i] = layout->part[i];
        off += align_up(layout->part[i], 64);
    }
    *slot_size = align_up(sizeof(struct ob_record) + 3 * v->words * 8 + off, PAGE);
    at[0] = PAGE;
    at[1] = at[0] + 2 * *slot_size;
    at[2] = at[1] + align_up(layout->irqs, PAGE);
    at[3] = at[2] + align_up(layout->maps, PAGE);
    at[4] = at[3] + align_up(layout->shared, PAGE);
    at[5] = at[4] + align_up(layout->ram, PAGE);
    return at[5] + align_up(layout->migration, PAGE);
}

static int make_file(size_t size)
{
    int fd = memfd_create("outboard-vault", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

static uint8_t *slot_parts(const struct ob_vault *v, unsigned slot)
{
    return v->slot[slot] + sizeof(struct ob_record) + 3 * v->words * 8;
}

static int attach(struct ob_vault *v, const struct ob_vault_layout *layout, bool fresh)
{
    size_t at[6], slot_size;

    v->size = place(v, layout, at, &slot_size);
    if (fresh) {
        v->fd = make_file(v->size);
        if (v->fd < 0)
            return v->fd;
    } else {
        struct stat st;
        if (fstat(v->fd, &st) < 0)
            return -errno;
        if ((size_t)st.st_size != v->size)
            return -EINVAL;
    }
    uint8_t *p = mmap(NULL, v->size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    v->header = (struct ob_vault_header *)p;
    v->slot[0] = p + at[0];
    v->slot[1] = v->slot[0] + slot_size;
    v->irqs = p + at[1];
    v->maps = p + at[2];
    v->shared = p + at[3];
    v->ram = p + at[4];
    v->migration = p + at[5];
    if (fresh)
        *v->header = (struct ob_vault_header){ .magic = VAULT_MAGIC, .hash = layout->hash, .size = v->size };
    if (v->header->magic != VAULT_MAGIC || v->header->hash != layout->hash || v->header->size != v->size)
        return -EINVAL;
    return 0;
}

static int make_live(struct ob_vault *v)
{
    size_t size = v->part_off[OB_PARTS - 1] + align_up(v->part_size[OB_PARTS - 1], 64);

    if (posix_memalign((void **)&v->live, 64, size ? size : 64) != 0)
        return -ENOMEM;
    memset(v->live, 0, size);
    v->intents.set = calloc(3 * v->words + 1, 8);
    if (!v->intents.set)
        return -ENOMEM;
    v->intents.clear = v->intents.set + v->words;
    v->intents.pulse = v->intents.clear + v->words;
    return 0;
}

/* A predecessor's interrupts that are not out yet go with the next commit, which takes the current slot's place. */
static void carry_intents(struct ob_vault *v)
{
    struct ob_intents due;

    if (!ob_vault_unsignalled(v, &due, &v->reset_irqs))
        return;
    if (due.set) {
        memcpy(v->intents.set, due.set, 3 * v->words * 8);
        v->has_intents = true;
    }
}

int ob_vault_open(struct ob_vault *v, int fd, const struct ob_vault_layout *layout, struct ob_position *position)
{
    *v = (struct ob_vault){ .fd = fd };
    int err = attach(v, layout, fd < 0);
    if (!err)
        err = make_live(v);
    if (err) {
        if (fd >= 0)
            v->fd = -1; /* stays the caller's */
        ob_vault_close(v);
        return err;
    }
    *position = (struct ob_position){ .out_fds = -1 };
    memset(v->stale, 3, sizeof(v->stale));
    if (ob_vault_used(v)) {
        unsigned current = v->header->generation & 1;
        *position = ((struct ob_record *)v->slot[current])->position;
        for (int i = 0; i < OB_PARTS; i++) {
            memcpy(v->live + v->part_off[i], slot_parts(v, current) + v->part_off[i], v->part_size[i]);
            v->stale[i] = (uint8_t)(1u << !current);
        }
        carry_intents(v);
    }
    return 0;
}

void ob_vault_close(struct ob_vault *v)
{
    if (v->header)
        munmap(v->header, v->size);
    if (v->fd >= 0)
        close(v->fd);
    free(v->live);
    free(v->intents.set);
    *v = (struct ob_vault){ .fd = -1 };
}

bool ob_vault_used(const struct ob_vault *v)
{
    return v->header->generation > 0;
}

static void clear_intents(struct ob_vault *v)
{
    v->reset_irqs = false;
    if (v->has_intents) {
        memset(v->intents.set, 0, 3 * v->words * 8);
        v->has_intents = false;
    }
}

void ob_vault_commit(struct ob_vault *v, const struct ob_position *position)
{
    uint64_t generation = v->header->generation + 1;
    unsigned slot = generation & 1;
    struct ob_record *record = (struct ob_record *)v->slot[slot];

    record->position = *position;
    record->has_intents = v->has_intents;
    record->reset_irqs = v->reset_irqs;
    if (v->has_intents)
        memcpy(record + 1, v->intents.set, 3 * v->words * 8);
    for (int i = 0; i < OB_PARTS; i++) {
        if (v->dirty[i]) {
            v->stale[i] = 3;
            v->dirty[i] = false;
        }
        if (v->stale[i] & (1u << slot)) {
            memcpy(slot_parts(v, slot) + v->part_off[i], v->live + v->part_off[i], v->part_size[i]);
            v->stale[i] &= (uint8_t) ~(1u << slot);
        }
    }
    ob_step(copied);
    __atomic_store_n(&v->header->generation, generation, __ATOMIC_RELEASE);
    ob_step(committed);
    clear_intents(v);
}

void ob_vault_rollback(struct ob_vault *v)
{
    unsigned slot = v->header->generation & 1;

    for (int i = 0; i < OB_PARTS; i++) {
        if (v->dirty[i]) {
            memcpy(v->live + v->part_off[i], slot_parts(v, slot) + v->part_off[i], v->part_size[i]);
            v->dirty[i] = false;
        }
    }
    clear_intents(v);
}

bool ob_vault_unsignalled(struct ob_vault *v, struct ob_intents *intents, bool *reset)
{
    struct ob_record *record = (struct ob_record *)v->slot[v->header->generation & 1];

    if (!(record->has_intents | record->reset_irqs) || v->header->signalled == v->header->generation)
        return false;
    *reset = record->reset_irqs;
    if (!record->has_intents) {
        *intents = (struct ob_intents){ 0 };
        return true;
    }
    intents->set = (uint64_t *)(record + 1);
    intents->clear = intents->set + v->words;
    intents->pulse = intents->clear + v->words;
    return true;
}

void ob_vault_signalled(struct ob_vault *v)
{
    __atomic_store_n(&v->header->signalled, v->header->generation, __ATOMIC_RELEASE);
}
