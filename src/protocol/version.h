/* The JSON text of VERSION: what a side offers the other. */
#ifndef OB_PROTOCOL_VERSION_H
#define OB_PROTOCOL_VERSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define OB_VERSION_MAJOR    0
#define OB_VERSION_MINOR    0
#define OB_VERSION_MAX_TEXT 4096 /* bytes with the NUL, in and out */

struct ob_capabilities {
    uint32_t max_msg_fds;        /* descriptors that the sender takes with one message */
    uint32_t max_data_xfer_size; /* bytes of data that it takes or gives in one message */
    uint32_t max_dma_maps;
    uint64_t pgsizes; /* page sizes of DMA maps, or'ed together */
    bool write_multiple;
    struct {
        bool supported;
        int fd_index; /* in a reply: which descriptor is the socket; -1: absent */
    } twin_socket;
    struct { /* not in the specification; QEMU and the reference library send it */
        uint64_t pgsize;
        uint64_t max_bitmap_size;
    } migration;
};

/* What holds for everything that is not mentioned. */
extern const struct ob_capabilities ob_capabilities_default;

/* Reads the tail of a VERSION message, `size` bytes that need not be terminated; size 0 gives the defaults. Unknown
 * keys are ignored. 0, or -EINVAL with *caps untouched and one line about it in why (always terminated); -ENOMEM. */
int ob_version_parse(struct ob_capabilities *caps, const void *text, size_t size, char *why, size_t why_size);

/* Writes the text with its NUL to buf and returns its size with the NUL. twin_socket is written if it is supported, its
 * fd_index if that is not -1. -EINVAL for a number that ob_version_parse() would refuse, -ENOBUFS, -ENOMEM. */
ssize_t ob_version_encode(char *buf, size_t room, const struct ob_capabilities *caps);

#endif
