/* driver.h: what the halves of the driver API share: the common half (driver.c, bars.c, irqs.c, memory.c), which knows
 * PCI, and the ways to reach a device, each of which fills an ob_driver_ops: direct.c over a vfio-user socket, bus.c
 * through the host bridge of a QEMU.
 *
 * One thread. Functions return 0 or a count, or -errno. Values are in the host's byte order. */
#ifndef OB_DRIVER_H
#define OB_DRIVER_H

#include <outboard/pci_driver.h>

#define OB_DRIVER_BARS    6u
#define OB_DRIVER_VECTORS 2048u /* PCI 6.8.2.3: the most that MSI-X can have */
#define OB_DRIVER_WHY     256u  /* bytes of a line that says why */
/* Where DMA memory begins; it is given out upwards, since devices may drive few address lines. */
#define OB_DRIVER_MEMORY_START UINT64_C(0x1000000)

/* DMA memory that was given out. */
struct ob_driver_block {
    struct ob_driver_block *next; /* by rising IOVA */
    struct ob_driver_memory memory;
};

/* A way to reach a device. Accesses are of 1, 2, 4 or 8 bytes and within their BAR; configuration space of 1, 2 or 4,
 * aligned and below config_size. Members that are not there are functions that the way does not have. */
struct ob_driver_ops {
    int (*config)(struct ob_driver *driver, bool write, unsigned off, unsigned width, uint32_t *val);
    int (*access)(struct ob_driver *driver, bool write, unsigned bar, uint64_t off, unsigned width, uint64_t *val);
    /* What the way itself knows of a BAR's size; optional. */
    int (*bar_size)(struct ob_driver *driver, unsigned bar, uint64_t *size);
    /* Optional. */
    int (*map)(struct ob_driver *driver, unsigned bar, uint64_t off, uint64_t len, volatile void **memory);
    /* Sets memory.bytes of a block that has IOVA and size. */
    int (*alloc)(struct ob_driver *driver, struct ob_driver_block *block);
    int (*free)(struct ob_driver *driver, struct ob_driver_block *block);
    /* Prepares for interrupts, before the device is told to send them; gives how many vectors there can be. */
    int (*irqs_on)(struct ob_driver *driver, enum ob_driver_irqs kind, unsigned vectors);
    int (*irqs_off)(struct ob_driver *driver, enum ob_driver_irqs kind);
    /* What a message of that vector is to consist of. */
    void (*message)(struct ob_driver *driver, unsigned vector, uint64_t *address, uint32_t *data);
    /* Like the public functions of these names, of a vector that is enabled. */
    int (*irq_wait)(struct ob_driver *driver, unsigned vector, int timeout_ms);
    int (*irq_pending)(struct ob_driver *driver, unsigned vector);
    /* Called between two looks at a register: lets time pass for the device where it has a clock of its own. */
    int (*pass_time)(struct ob_driver *driver);
    int (*reset)(struct ob_driver *driver);
    struct ob_client *(*client)(struct ob_driver *driver);
    /* Why the device is gone: one line, or "". */
    const char *(*why)(struct ob_driver *driver);
    /* Also frees the driver. */
    void (*close)(struct ob_driver *driver);
};

struct ob_driver {
    const struct ob_driver_ops *ops;
    int timeout_ms;
    uint64_t memory_end; /* of the IOVAs that can be given out */
    unsigned config_size;
    struct ob_driver_bar bars[OB_DRIVER_BARS];
    struct ob_driver_block *blocks;
    enum ob_driver_irqs irqs;
    unsigned vectors, irq_cap;     /* enabled; the capability that enables them */
    unsigned table_bar, table_off; /* of MSI-X */
    int error;                     /* the first that was not yet told */
    char failure[OB_DRIVER_WHY], told[OB_DRIVER_WHY];
};

/* Opens for driver.c: allocates *driver and fills ops, memory_end and config_size; `argument` is what follows the
 * target's colon. */
int ob_direct_open(bool spawn, const char *argument, const struct ob_driver_options *options, struct ob_driver **driver,
                   char *why);
enum ob_qemu_device { OB_QEMU_BUILTIN, OB_QEMU_UNIX, OB_QEMU_SPAWN };
int ob_bus_open(enum ob_qemu_device kind, const char *argument, const struct ob_driver_options *options,
                struct ob_driver **driver, char *why);

/* Writes the line of `why` (OB_DRIVER_WHY bytes, or NULL) and returns err. */
__attribute__((format(printf, 3, 4))) int ob_driver_why(char *why, int err, const char *format, ...);
/* Remembers the first failure; returns err. */
__attribute__((format(printf, 3, 4))) int ob_driver_failed(struct ob_driver *driver, int err, const char *format, ...);

/* bars.c: sizes all BARs; gives them addresses and enables decoding, which repeats after a reset. */
int ob_driver_size_bars(struct ob_driver *driver, char *why);
int ob_driver_place_bars(struct ob_driver *driver, char *why);
void ob_driver_write_bars(struct ob_driver *driver);

/* memory.c */
struct ob_driver_block *ob_driver_find_block(struct ob_driver *driver, uint64_t iova, size_t len);
void ob_driver_free_blocks(struct ob_driver *driver);

/* Milliseconds of CLOCK_MONOTONIC. What is left until `deadline`, 0 when it is over. */
int64_t ob_driver_now(void);
int ob_driver_left(int64_t deadline);
/* Sleeps before turn `turn` of looking at something that no event tells of: not at all at first, then up to 1 ms. */
void ob_driver_back_off(unsigned turn);

/* Splits `text`, which is changed, at blanks; words ends with NULL. -E2BIG: no room. */
int ob_driver_words(char *text, char **words, unsigned room);

#endif
