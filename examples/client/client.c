/* client.c: the least that a VM monitor does with a device outside it: connect, look at it, read, give it memory.
 *
 *     cc client.c -o client $(pkg-config --cflags --libs outboard)
 *     ./client outboard serve edu
 *
 * The arguments are a server program; ob_client_connect() takes the path of a socket instead. */
#include <outboard/client.h>

#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUEST_BASE 0x100000ull
#define GUEST_SIZE 0x100000ull

static void print_regions(struct ob_client *client)
{
    for (uint32_t index = 0; index < ob_client_info(client)->regions; index++) {
        const struct ob_client_region *region;

        if (ob_client_region(client, index, &region) == 0 && region->size > 0)
            printf("region %u: %llu bytes, %u areas to map\n", index, (unsigned long long)region->size, region->areas);
    }
}

/* Memory that both sides map: what the device reads and writes there costs no message. */
static int give_memory(struct ob_client *client)
{
    int fd = memfd_create("guest", MFD_CLOEXEC), err = -1;

    if (fd >= 0 && ftruncate(fd, GUEST_SIZE) == 0)
        err = ob_client_dma_map(client, GUEST_BASE, GUEST_SIZE, PROT_READ | PROT_WRITE, fd, 0, NULL);
    if (fd >= 0)
        close(fd);
    return err;
}

int main(int argc, char **argv)
{
    struct ob_client *client;
    uint16_t id[2];
    char why[256];
    int err;

    if (argc < 2) {
        fprintf(stderr, "usage: client PROGRAM [ARGUMENT]...\n");
        return 2;
    }
    if (ob_client_spawn(argv + 1, NULL, &client, why, sizeof(why)) < 0) {
        fprintf(stderr, "client: %s\n", why);
        return 1;
    }
    print_regions(client);
    err = ob_client_read(client, VFIO_PCI_CONFIG_REGION_INDEX, 0, id, sizeof(id), NULL);
    if (!err)
        printf("PCI device %04x:%04x\n", id[0], id[1]);
    if (!err)
        err = give_memory(client);
    if (!err)
        err = ob_client_dma_unmap_all(client);
    if (err)
        fprintf(stderr, "client: %s %s\n", strerror(-err), ob_client_why(client));
    ob_client_close(client);
    return err ? 1 : 0;
}
