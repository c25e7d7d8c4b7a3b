/* Writes the dictionary of the protocol's fuzz target: headers, flags and sizes, from the table of commands. */
#include <stdio.h>

#include "protocol/message.h"

static void word(const char *command, const char *what, const void *bytes, size_t size)
{
    printf("%s_%s=\"", command, what);
    for (size_t i = 0; i < size; i++)
        printf("\\x%02x", ((const unsigned char *)bytes)[i]);
    printf("\"\n");
}

static void part_words(const char *command, const char *what, uint16_t number, const struct ob_part *part,
                       uint32_t flags)
{
    struct {
        struct ob_header header;
        uint32_t argsz;
    } start = { { 0, number, OB_HEADER_SIZE + (uint32_t)part->size, flags, 0 }, part->size };

    /* Fixed parts that begin with argsz are most of them; the others get a plausible first field. */
    word(command, what, &start, part->size >= sizeof(start.argsz) ? sizeof(start) : sizeof(start.header));
    for (size_t i = 0; i < part->nfields; i++) {
        const struct ob_bit_name *bits = ob_bit_names(part->fields[i].kind);
        for (; bits && bits->bit; bits++)
            word(command, bits->name, &bits->bit, sizeof(bits->bit));
    }
}

int main(void)
{
    static const char *const texts[] = { "capabilities", "max_msg_fds", "max_data_xfer_size",
                                         "max_dma_maps", "pgsizes",     "write_multiple",
                                         "twin_socket",  "supported",   "fd_index",
                                         "migration",    "pgsize",      "max_bitmap_size" };

    for (uint16_t number = 0; number < OB_COMMAND_END; number++) {
        const struct ob_command_info *info = &ob_commands[number];
        if (!info->name)
            continue;
        part_words(info->name, "request", number, &info->request, 0);
        part_words(info->name, "reply", number, &info->reply, OB_FLAG_REPLY);
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        printf("\"\\\"%s\\\":\"\n", texts[i]);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
