/* model.c: the model device as a whole: negotiation, maps, and which command goes where. */
#include "model.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- Replies ----------------------------------------------------------------------------------------------------- */

void reply_resize(struct reply *reply, size_t size)
{
    if (size > reply->room) {
        uint8_t *payload = realloc(reply->payload, size);

        if (payload == NULL)
            abort(); /* some KiB: there is nothing to judge with */
        reply->payload = payload;
        reply->room = size;
    }
    if (size > reply->size)
        memset(reply->payload + reply->size, 0, size - reply->size);
    reply->size = size;
    reply->header.size = (uint32_t)(sizeof(reply->header) + size);
}

void reply_put(struct reply *reply, size_t offset, const void *bytes, size_t size)
{
    if (reply->size < offset + size)
        reply_resize(reply, offset + size);
    memcpy(reply->payload + offset, bytes, size);
}

void reply_put32(struct reply *reply, size_t offset, uint32_t value)
{
    reply_put(reply, offset, &value, sizeof(value));
}

uint32_t reply_get32(const struct reply *reply, size_t offset)
{
    uint32_t value = 0;

    if (offset + sizeof(value) <= reply->size)
        memcpy(&value, reply->payload + offset, sizeof(value));
    return value;
}

void reply_add_fd(struct reply *reply, int fd, bool own)
{
    reply->owned |= (unsigned)own << reply->nfds;
    reply->fds[reply->nfds++] = fd;
}

void reply_drop_fds(struct reply *reply)
{
    for (unsigned i = 0; i < reply->nfds; i++) {
        if (reply->owned & 1u << i)
            close(reply->fds[i]);
    }
    reply->nfds = reply->owned = 0;
}

void reply_refuse(struct reply *reply, uint32_t error)
{
    reply_resize(reply, 0);
    reply_drop_fds(reply);
    reply->header.flags = OB_RAW_REPLY | OB_RAW_ERROR;
    reply->header.error = error;
}

void reply_free(struct reply *reply)
{
    reply_drop_fds(reply);
    free(reply->payload);
    *reply = (struct reply){ .none = true };
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

static void init_regions(struct model *model)
{
    const uint32_t rw = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    const uint32_t mappable = rw | VFIO_REGION_INFO_FLAG_MMAP;

    model->regions = MODEL_REGIONS;
    model->region[0] = (struct model_region){ .flags = rw, .size = 4096 };
    model->region[1] = (struct model_region){ .flags = rw, .size = 32 };
    model->region[2] = (struct model_region){
        .flags = mappable, .size = 65536, .areas = 2, .nr_areas = 2, .area = { { 0x1000, 0x2000 }, { 0x8000, 0x1000 } }
    };
    model->region[4] = (struct model_region){ .flags = mappable, .size = 16384 };
    model->region[VFIO_PCI_CONFIG_REGION_INDEX] = (struct model_region){ .flags = rw, .size = 4096 };
    model->region[9] = (struct model_region){ .flags = rw, .size = 4096, .typed = true };
}

static int init_memory(struct model *model)
{
    const uint32_t id = MODEL_ID;

    for (unsigned i = 0; i < MODEL_REGIONS; i++) {
        struct model_region *r = &model->region[i];

        if (r->size == 0 || i == VFIO_PCI_CONFIG_REGION_INDEX)
            continue;
        if (!(r->flags & VFIO_REGION_INFO_FLAG_MMAP)) {
            r->memory = calloc(1, r->size);
            if (r->memory == NULL)
                return -ENOMEM;
            continue;
        }
        r->fd = memfd_create("conform-region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (r->fd < 0 || ftruncate(r->fd, (off_t)r->size) != 0)
            return -errno;
    }
    memcpy(model->region[0].memory, &id, sizeof(id));
    return 0;
}

static int init_io_fds(struct model *model)
{
    model->ios = 3;
    model->io_stride = 40;
    for (unsigned i = 0; i < MODEL_IO_FDS; i++) {
        model->io[i] = (struct model_io){ .offset = 0x40 + 8 * i, .size = 4, .fd_index = i };
        model->io_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (model->io_fd[i] < 0)
            return -errno;
    }
    return 0;
}

int model_init(struct model *model)
{
    int err;

    *model = (struct model){
        .max_msg_fds = 16,
        .max_data = 1048576,
        .max_maps = 65535,
        .pgsizes = 4096,
        .multi = true,
        .can_reset = true,
        .can_log = true,
        .migration = VFIO_MIGRATION_STOP_COPY | MODEL_PRE_COPY,
        .irqs = MODEL_IRQS,
        .irq = { { .flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED, .count = 1 },
                 { .flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE, .count = 4 },
                 { .flags = VFIO_IRQ_INFO_EVENTFD, .count = MODEL_VECTORS },
                 { .flags = VFIO_IRQ_INFO_EVENTFD, .count = 1 },
                 { .flags = VFIO_IRQ_INFO_EVENTFD, .count = 1 } },
        .client_fds = 1,
        .client_data = 1048576,
        .state = VFIO_DEVICE_STATE_RUNNING,
        .twin_fd = -1,
    };
    init_regions(model);
    for (unsigned i = 0; i < MODEL_REGIONS; i++)
        model->region[i].fd = -1;
    for (unsigned i = 0; i < MODEL_IO_FDS; i++)
        model->io_fd[i] = -1;
    memset(model->vector, -1, sizeof(model->vector));
    model_init_config(model);
    err = init_memory(model);
    return err != 0 ? err : init_io_fds(model);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void model_free(struct model *model)
{
    for (unsigned i = 0; i < MODEL_REGIONS; i++) {
        close_fd(model->region[i].fd);
        free(model->region[i].memory);
    }
    for (size_t i = 0; i < model->n_maps; i++)
        close_fd(model->maps[i].fd);
    for (unsigned i = 0; i < MODEL_IRQS; i++) {
        for (unsigned v = 0; v < MODEL_VECTORS; v++)
            close_fd(model->vector[i][v]);
    }
    for (unsigned i = 0; i < MODEL_IO_FDS; i++)
        close_fd(model->io_fd[i]);
    close_fd(model->twin_fd);
    free(model->maps);
}

/* --- VERSION ----------------------------------------------------------------------------------------------------- */

/* What the client says; what is malformed is for the rules. */
static void take_capabilities(struct model *model, const struct ob_raw_message *m)
{
    json_t *root = m->size > 4 ? json_loadb((char *)m->payload + 4, m->size - 5, 0, NULL) : NULL;
    json_t *caps = json_object_get(root, "capabilities");
    json_t *value;

    value = json_object_get(caps, "max_msg_fds");
    if (json_is_integer(value) && json_integer_value(value) >= 0)
        model->client_fds = (uint64_t)json_integer_value(value);
    value = json_object_get(caps, "max_data_xfer_size");
    if (json_is_integer(value) && json_integer_value(value) >= 0)
        model->client_data = (uint64_t)json_integer_value(value);
    model->client_multi = json_is_true(json_object_get(caps, "write_multiple"));
    model->client_twin = json_is_true(json_object_get(json_object_get(caps, "twin_socket"), "supported"));
    json_decref(root);
}

static int make_twin(struct model *model, struct reply *reply)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return EMFILE;
    model->twin_fd = pair[0];
    reply_add_fd(reply, pair[1], true);
    return 0;
}

static int execute_version(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    const uint16_t version[2] = { 0, 0 };
    bool twin;
    char *text;

    take_capabilities(model, m);
    model->negotiated = true;
    twin = model->twin && model->client_twin && model->client_fds > 0;
    if (twin && make_twin(model, reply) != 0)
        return EMFILE;
    reply_put(reply, 0, version, sizeof(version));
    if (model->version_text != NULL) {
        if (*model->version_text != '\0')
            reply_put(reply, 4, model->version_text, strlen(model->version_text) + 1);
        return 0;
    }
    if (asprintf(&text,
                 "{\"capabilities\":{\"max_msg_fds\":%u,\"max_data_xfer_size\":%u,\"max_dma_maps\":%u,\"pgsizes\":%llu"
                 "%s%s}}",
                 model->max_msg_fds, model->max_data, model->max_maps, (unsigned long long)model->pgsizes,
                 model->multi && model->client_multi ? ",\"write_multiple\":true" : "",
                 twin ? ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}" : "") < 0)
        return ENOMEM;
    reply_put(reply, 4, text, strlen(text) + 1);
    free(text);
    return 0;
}

/* --- Maps -------------------------------------------------------------------------------------------------------- */

const struct model_map *model_map_of(const struct model *model, uint64_t address, uint64_t size)
{
    for (size_t i = 0; i < model->n_maps; i++) {
        const struct model_map *map = &model->maps[i];

        if (address >= map->address && address - map->address < map->size &&
            size <= map->size - (address - map->address))
            return map;
    }
    return NULL;
}

static int execute_map(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    struct ob_raw_dma_map ask;
    struct model_map *maps;

    if (model_take(m, &ask, sizeof(ask)) != 0 || ask.size == 0)
        return EINVAL;
    for (size_t i = 0; i < model->n_maps; i++) {
        const struct model_map *map = &model->maps[i];

        if (ask.address < map->address + map->size && map->address < ask.address + ask.size)
            return EEXIST;
    }
    if (model->n_maps == model->maps_room) {
        maps = realloc(model->maps, (2 * model->maps_room + 16) * sizeof(*maps));
        if (maps == NULL)
            return ENOMEM;
        model->maps = maps;
        model->maps_room = 2 * model->maps_room + 16;
    }
    maps = &model->maps[model->n_maps++];
    *maps = (struct model_map){
        .address = ask.address, .size = ask.size, .offset = ask.offset, .flags = ask.flags, .fd = -1
    };
    if (m->nfds > 0)
        model_take_fd(m, 0, &maps->fd);
    return 0;
}

static int execute_unmap(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    struct ob_raw_dma_unmap ask;
    size_t kept = 0;
    bool found = false;

    if (model_take(m, &ask, sizeof(ask)) != 0)
        return EINVAL;
    for (size_t i = 0; i < model->n_maps; i++) {
        struct model_map *map = &model->maps[i];
        bool all = (ask.flags & VFIO_DMA_UNMAP_FLAG_ALL) && ask.address == 0 && ask.size == 0;

        if (all || (map->address == ask.address && map->size == ask.size)) {
            close_fd(map->fd);
            found = true;
        } else {
            model->maps[kept++] = *map;
        }
    }
    model->n_maps = kept;
    reply_put(reply, 0, &ask, sizeof(ask));
    reply_put32(reply, 0, sizeof(ask));
    return found ? 0 : ENOENT;
}

/* --- The device -------------------------------------------------------------------------------------------------- */

static int execute_info(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    const uint32_t info[4] = { 16, VFIO_DEVICE_FLAGS_PCI | (model->can_reset ? VFIO_DEVICE_FLAGS_RESET : 0),
                               model->regions, model->irqs };
    uint32_t ask[4];

    if (model_take(m, ask, sizeof(ask)) != 0)
        return EINVAL;
    reply_put(reply, 0, info, sizeof(info));
    return 0;
}

static int execute_reset(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    if (!model->can_reset)
        return EOPNOTSUPP;
    model_init_config(model);
    model->state = VFIO_DEVICE_STATE_RUNNING;
    return 0;
}

bool model_bus_master(const struct model *model)
{
    return model->config[4] & 4;
}

int model_take(const struct ob_raw_message *m, void *to, size_t size)
{
    if (m->size < size)
        return EINVAL;
    memcpy(to, m->payload, size);
    return 0;
}

void model_take_fd(struct ob_raw_message *m, unsigned i, int *to)
{
    close_fd(*to);
    *to = m->fds[i];
    m->fds[i] = -1;
}

void model_execute(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    static model_fn *const commands[] = {
        [OB_RAW_VERSION] = execute_version,
        [OB_RAW_DMA_MAP] = execute_map,
        [OB_RAW_DMA_UNMAP] = execute_unmap,
        [OB_RAW_GET_INFO] = execute_info,
        [OB_RAW_GET_REGION_INFO] = model_region_info,
        [OB_RAW_GET_REGION_IO_FDS] = model_io_fds,
        [OB_RAW_GET_IRQ_INFO] = model_irq_info,
        [OB_RAW_SET_IRQS] = model_set_irqs,
        [OB_RAW_REGION_READ] = model_read,
        [OB_RAW_REGION_WRITE] = model_write,
        [OB_RAW_RESET] = execute_reset,
        [OB_RAW_WRITE_MULTI] = model_write_multi,
        [OB_RAW_FEATURE] = model_feature,
        [OB_RAW_MIG_READ] = model_data_read,
        [OB_RAW_MIG_WRITE] = model_data_write,
    };
    const size_t n = sizeof(commands) / sizeof(commands[0]);
    model_fn *command = m->header.command < n ? commands[m->header.command] : NULL;
    int err;

    *reply = (struct reply){ .none = m->header.flags & OB_RAW_NO_REPLY,
                             .header = { .id = m->header.id,
                                         .command = m->header.command,
                                         .flags = OB_RAW_REPLY,
                                         .size = sizeof(reply->header) } };
    err = command == NULL ? ENOSYS : command(model, m, reply);
    if (err != 0)
        reply_refuse(reply, (uint32_t)err);
}
