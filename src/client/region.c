/* Regions: what they are, and access to them by messages and through mapped memory. */
#include "client/client.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/sender.h"

/* What is asked with at first, and at most: SPDK's own client asks with as much; the most areas that are taken, and
 * some room for capabilities that are not known. */
#define FIRST_ARGSZ 4096u
#define MAX_ARGSZ   (sizeof(struct vfio_region_info) + OB_MIN_TAIL_ROOM)

/* --- What they are ----------------------------------------------------------------------------------------------- */

static int compare_areas(const void *a, const void *b)
{
    const struct ob_client_area *x = a, *y = b;

    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* The areas that can be mapped: those in whole pages, sorted. -EPROTO: they overlap. (That each lies in the region has
 * been checked with the message.) */
static int take_areas(struct ob_client_region *info, const uint8_t *cap)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct vfio_region_info_cap_sparse_mmap sparse;
    struct vfio_region_sparse_mmap_area area;

    memcpy(&sparse, cap, sizeof(sparse));
    for (uint32_t i = 0; i < sparse.nr_areas && info->areas < OB_CLIENT_MAX_AREAS; i++) {
        memcpy(&area, cap + sizeof(sparse) + i * sizeof(area), sizeof(area));
        if (area.size > 0 && area.offset % page == 0 && area.size % page == 0)
            info->area[info->areas++] = (struct ob_client_area){ area.offset, area.size };
    }
    qsort(info->area, info->areas, sizeof(info->area[0]), compare_areas);
    for (uint32_t i = 1; i < info->areas; i++) {
        if (info->area[i - 1].offset + info->area[i - 1].size > info->area[i].offset)
            return -EPROTO;
    }
    return 0;
}

static int take_capabilities(struct ob_client_region *info, const struct ob_message *reply)
{
    ssize_t sparse = ob_region_capability(reply, VFIO_REGION_INFO_CAP_SPARSE_MMAP);
    ssize_t type = ob_region_capability(reply, VFIO_REGION_INFO_CAP_TYPE);
    struct vfio_region_info_cap_type cap;

    if (type >= 0 && reply->tail_size - (size_t)type >= sizeof(cap)) {
        memcpy(&cap, reply->tail + type, sizeof(cap));
        info->typed = true;
        info->type = cap.type;
        info->subtype = cap.subtype;
    }
    if (info->fd < 0)
        return 0;
    if (sparse >= 0)
        return take_areas(info, reply->tail + sparse);
    info->areas = 1;
    info->area[0] = (struct ob_client_area){ 0, info->size };
    return 0;
}

/* buf is the struct ob_region; `len` is the argsz of the request. */
static ssize_t take_region(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                           int *fds)
{
    struct ob_region *region = slot->buf;
    const struct vfio_region_info *wire;
    struct ob_client_region *info;

    if (err) {
        /* The server's refusal concerns this region alone. */
        region->error = err;
        return client->dead ? err : 0;
    }
    wire = &reply->u.region_info;
    if (wire->argsz > slot->len && wire->argsz <= MAX_ARGSZ && slot->len < MAX_ARGSZ) {
        region->error = -EAGAIN;
        return 0;
    }
    info = calloc(1, sizeof(*info));
    if (!info) {
        region->error = -ENOMEM;
        return -ENOMEM;
    }
    *info = (struct ob_client_region){ .flags = wire->flags, .size = wire->size, .offset = wire->offset, .fd = -1 };
    region->error = 0;
    region->info = info;
    if ((wire->flags & VFIO_REGION_INFO_FLAG_MMAP) && reply->nfds > 0 && wire->argsz <= slot->len && wire->size > 0 &&
        wire->offset <= INT64_MAX && wire->size <= (uint64_t)INT64_MAX - wire->offset) {
        info->fd = fds[0];
        fds[0] = -1;
    }
    return take_capabilities(info, reply);
}

static int ask_region(struct ob_submit *submit, uint32_t index, uint32_t argsz)
{
    struct ob_message message = { .header.command = OB_DEVICE_GET_REGION_INFO,
                                  .u.region_info = { .argsz = argsz, .index = index } };
    struct ob_message_plan plan = { .take = take_region, .buf = &submit->client->regions[index], .len = argsz };

    return ob_submit_message(submit, &message, &plan);
}

static ssize_t take_irq(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                        int *fds)
{
    struct ob_client_irq *irq = slot->buf;

    client->irq_errors[irq - client->irqs] = err;
    if (err)
        return client->dead ? err : 0;
    *irq = (struct ob_client_irq){ reply->u.irq_info.flags, reply->u.irq_info.count };
    return 0;
}

static int ask_irq(struct ob_submit *submit, uint32_t index)
{
    struct ob_message message = { .header.command = OB_DEVICE_GET_IRQ_INFO,
                                  .u.irq_info = { .argsz = sizeof(struct vfio_irq_info), .index = index } };
    struct ob_message_plan plan = { .take = take_irq, .buf = &submit->client->irqs[index] };

    return ob_submit_message(submit, &message, &plan);
}

int ob_regions_ask(struct ob_client *client)
{
    uint32_t regions = client->info.regions, irqs = client->info.irqs;
    struct ob_submit submit;
    int err;

    client->regions = calloc(regions ? regions : 1, sizeof(*client->regions));
    client->irqs = calloc(irqs ? irqs : 1, sizeof(*client->irqs));
    client->irq_errors = calloc(irqs ? irqs : 1, sizeof(int));
    if (!client->regions || !client->irqs || !client->irq_errors)
        return -ENOMEM;
    err = ob_submit_begin(&submit, client, NULL);
    if (err)
        return err;
    for (uint32_t i = 0; i < regions && !err; i++)
        err = ask_region(&submit, i, FIRST_ARGSZ);
    for (uint32_t i = 0; i < irqs && !err; i++)
        err = ask_irq(&submit, i);
    err = (int)ob_submit_end(&submit, err);
    for (uint32_t i = 0; i < regions && !err; i++) {
        /* Its capabilities need more room. */
        if (client->regions[i].error != -EAGAIN)
            continue;
        err = ob_submit_begin(&submit, client, NULL);
        if (!err)
            err = (int)ob_submit_end(&submit, ask_region(&submit, i, MAX_ARGSZ));
    }
    return err;
}

void ob_regions_free(struct ob_client *client)
{
    for (uint32_t i = 0; client->regions && i < client->info.regions; i++) {
        struct ob_region *region = &client->regions[i];

        for (uint32_t area = 0; region->memory && area < region->info->areas; area++) {
            if (region->memory[area])
                munmap(region->memory[area], region->info->area[area].size);
        }
        free(region->memory);
        if (region->info && region->info->fd >= 0)
            close(region->info->fd);
        free(region->info);
    }
    free(client->regions);
    free(client->irqs);
    free(client->irq_errors);
}

int ob_client_region(struct ob_client *client, uint32_t index, const struct ob_client_region **region)
{
    if (index >= client->info.regions)
        return -EINVAL;
    *region = client->regions[index].info;
    return client->regions[index].error;
}

int ob_region_check(struct ob_client *client, uint32_t index, uint64_t offset, uint64_t len, struct ob_region **region)
{
    const struct ob_client_region *info;
    int err;

    *region = NULL;
    err = ob_client_region(client, index, &info);
    if (err)
        return err;
    *region = &client->regions[index];
    return offset <= info->size && len <= info->size - offset ? 0 : -EINVAL;
}

/* --- Memory ------------------------------------------------------------------------------------------------------ */

static int map_areas(struct ob_region *region)
{
    const struct ob_client_region *info = region->info;
    struct stat file;
    uint64_t end = info->area[info->areas - 1].offset + info->area[info->areas - 1].size;

    region->prot = (info->flags & VFIO_REGION_INFO_FLAG_READ ? PROT_READ : 0) |
                   (info->flags & VFIO_REGION_INFO_FLAG_WRITE ? PROT_WRITE : 0);
    if (fstat(info->fd, &file) < 0)
        return -errno;
    /* Touching memory beyond the end of a file kills; a device file has no size that could be asked for. */
    if (!S_ISREG(file.st_mode) && !S_ISCHR(file.st_mode))
        return -ENODEV;
    if (S_ISREG(file.st_mode) && ((uint64_t)file.st_size < info->offset || (uint64_t)file.st_size - info->offset < end))
        return -ENXIO;
    region->memory = calloc(info->areas, sizeof(*region->memory));
    if (!region->memory)
        return -ENOMEM;
    for (uint32_t i = 0; i < info->areas; i++) {
        const struct ob_client_area *area = &info->area[i];
        void *memory = mmap(NULL, area->size, region->prot, MAP_SHARED, info->fd, (off_t)(info->offset + area->offset));

        if (memory == MAP_FAILED) {
            int err = -errno;

            while (i-- > 0)
                munmap(region->memory[i], info->area[i].size);
            free(region->memory);
            region->memory = NULL;
            return err;
        }
        region->memory[i] = memory;
    }
    return 0;
}

int ob_client_map(struct ob_client *client, uint32_t index)
{
    struct ob_region *region;
    int err = ob_region_check(client, index, 0, 0, &region);

    if (err || region->info->areas == 0)
        return err;
    pthread_mutex_lock(&client->lock);
    if (!atomic_load_explicit(&region->mapped, memory_order_relaxed)) {
        err = map_areas(region);
        if (!err)
            atomic_store_explicit(&region->mapped, true, memory_order_release);
    }
    pthread_mutex_unlock(&client->lock);
    return err ? err : (int)region->info->areas;
}

/* The first area that ends above `offset`; `areas` if none. */
static uint32_t area_at(const struct ob_client_region *info, uint64_t offset)
{
    uint32_t low = 0, high = info->areas;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (info->area[middle].offset + info->area[middle].size > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The memory at `offset`, or NULL; *len is cut to where that changes. */
static char *memory_at(const struct ob_region *region, uint64_t offset, uint64_t *len, int prot)
{
    const struct ob_client_region *info = region->info;
    const struct ob_client_area *area;
    uint32_t i;

    if (!atomic_load_explicit(&region->mapped, memory_order_acquire) || !(region->prot & prot))
        return NULL;
    i = area_at(info, offset);
    if (i == info->areas)
        return NULL;
    area = &info->area[i];
    if (offset < area->offset) {
        if (*len > area->offset - offset)
            *len = area->offset - offset;
        return NULL;
    }
    if (*len > area->size - (offset - area->offset))
        *len = area->size - (offset - area->offset);
    return region->memory[i] + (offset - area->offset);
}

volatile void *ob_client_memory(struct ob_client *client, uint32_t index, uint64_t offset, uint64_t len)
{
    struct ob_region *region;
    uint64_t piece = len;
    char *memory;

    if (ob_region_check(client, index, offset, len, &region) < 0)
        return NULL;
    memory = memory_at(region, offset, &piece, PROT_READ | PROT_WRITE);
    return piece == len ? memory : NULL;
}

/* In one access where that is possible: the device may be looking. `memory` is the side that is shared. */
static void copy_from(void *to, const volatile char *memory, size_t len)
{
    uintptr_t at = (uintptr_t)memory;
    uint64_t value;

    if (len == 8 && at % 8 == 0) {
        value = *(const volatile uint64_t *)memory;
        memcpy(to, &value, 8);
    } else if (len == 4 && at % 4 == 0) {
        uint32_t value32 = *(const volatile uint32_t *)memory;

        memcpy(to, &value32, 4);
    } else if (len == 2 && at % 2 == 0) {
        uint16_t value16 = *(const volatile uint16_t *)memory;

        memcpy(to, &value16, 2);
    } else {
        memcpy(to, (const char *)memory, len);
    }
}

static void copy_to(volatile char *memory, const void *from, size_t len)
{
    uintptr_t at = (uintptr_t)memory;

    if (len == 8 && at % 8 == 0) {
        uint64_t value;

        memcpy(&value, from, 8);
        *(volatile uint64_t *)memory = value;
    } else if (len == 4 && at % 4 == 0) {
        uint32_t value;

        memcpy(&value, from, 4);
        *(volatile uint32_t *)memory = value;
    } else if (len == 2 && at % 2 == 0) {
        uint16_t value;

        memcpy(&value, from, 2);
        *(volatile uint16_t *)memory = value;
    } else {
        memcpy((char *)memory, from, len);
    }
}

/* --- Access ------------------------------------------------------------------------------------------------------ */

/* Is the reply about the access that was asked for? */
static bool same_access(const struct ob_slot *slot, const struct ob_message *reply)
{
    const struct ob_wire_region_access *asked = &slot->request.u.region_access, *got = &reply->u.region_access;

    return got->offset == asked->offset && got->region == asked->region;
}

static ssize_t take_read(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                         int *fds)
{
    if (err)
        return err;
    if (!same_access(slot, reply))
        return -EPROTO;
    if (reply->tail_size > 0)
        memcpy(slot->buf, reply->tail, reply->tail_size);
    return reply->tail_size == slot->len ? 0 : -EIO;
}

static ssize_t take_write(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                          int *fds)
{
    if (err)
        return err;
    if (!same_access(slot, reply))
        return -EPROTO;
    return reply->u.region_access.count == slot->request.u.region_access.count ? 0 : -EIO;
}

struct access {
    uint32_t region;
    uint64_t offset;
    char *buf; /* read into, or written from */
    size_t len;
    bool write;
};

static int send_piece(struct ob_submit *submit, const struct access *access, uint64_t done, uint32_t len)
{
    struct ob_message message = { .header.command = access->write ? OB_REGION_WRITE : OB_REGION_READ,
                                  .u.region_access = { access->offset + done, access->region, len } };
    struct ob_message_plan plan = { .take = access->write ? take_write : take_read, .len = len };

    if (access->write) {
        message.tail = (const uint8_t *)access->buf + done;
        message.tail_size = len;
    } else {
        plan.buf = access->buf + done;
    }
    return ob_submit_message(submit, &message, &plan);
}

/* Does what lies in mapped memory, and sends messages for the rest. With `count`, only counts the messages. */
static int access_pieces(struct ob_client *client, struct ob_region *region, const struct access *access,
                         struct ob_submit *submit, size_t *count)
{
    int err = 0;

    for (uint64_t done = 0, piece; done < access->len && !err; done += piece) {
        char *memory;

        piece = access->len - done;
        memory = memory_at(region, access->offset + done, &piece, access->write ? PROT_WRITE : PROT_READ);
        if (!memory && piece > client->info.max_data_xfer_size)
            piece = client->info.max_data_xfer_size;
        if (count)
            *count += !memory;
        else if (!memory)
            err = send_piece(submit, access, done, (uint32_t)piece);
        else if (access->write)
            copy_to(memory, access->buf + done, piece);
        else
            copy_from(access->buf + done, memory, piece);
    }
    return err;
}

static int access_region(struct ob_client *client, const struct access *access, struct ob_call *call)
{
    struct ob_submit submit;
    struct ob_region *region;
    size_t messages = 0;
    int err = ob_region_check(client, access->region, access->offset, access->len, &region);

    if (err)
        return err;
    err = ob_submit_begin(&submit, client, call);
    if (err)
        return err;
    if (!submit.sync && ob_callback_now(client) != OB_NO_CALLBACK) {
        access_pieces(client, region, access, NULL, &messages);
        err = ob_submit_room(&submit, messages);
    }
    if (!err)
        err = access_pieces(client, region, access, &submit, NULL);
    return (int)ob_submit_end(&submit, err);
}

int ob_client_read(struct ob_client *client, uint32_t region, uint64_t offset, void *buf, size_t len,
                   struct ob_call *call)
{
    struct access access = { region, offset, buf, len, false };

    return access_region(client, &access, call);
}

int ob_client_write(struct ob_client *client, uint32_t region, uint64_t offset, const void *buf, size_t len,
                    struct ob_call *call)
{
    struct access access = { region, offset, (char *)buf, len, true };

    return access_region(client, &access, call);
}
