/* What the tests of interrupts share: a function with INTx, MSI and MSI-X, its configuration space, and eventfds. */
#ifndef TEST_PCI_IRQS_H
#define TEST_PCI_IRQS_H

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "pci/irqs.h"

enum { FIXTURE_MSI = 2, FIXTURE_MSIX = 3 };

struct fixture {
    struct ob_pci_layout *layout;
    void *state;
    struct ob_irqs *irqs;
    uint8_t config[256];
    int open_before; /* descriptors of the process */
};

static inline int open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static inline void fixture_setup(struct fixture *f, unsigned msi, unsigned msix, unsigned pin)
{
    const struct ob_pci_spec spec = {
        .vendor = 1,
        .pin = (uint8_t)pin,
        .bars[0] = { .size = 0x10000 },
        .msi_vectors = (uint16_t)msi,
        .msix_vectors = (uint16_t)msix,
        .msix_pba = 0x8000,
        .pm = OB_PCI_PM_KEEP,
    };

    f->open_before = open_descriptors();
    assert_int_equal(ob_pci_layout_new(&spec, &f->layout, NULL, 0), 0);
    ob_pci_config_reset(f->layout, f->config);
    f->state = aligned_alloc(64, ob_irqs_state_size(f->layout));
    assert_non_null(f->state);
    memset(f->state, 0, ob_irqs_state_size(f->layout));
    assert_int_equal(ob_irqs_new(f->layout, f->state, &f->irqs), 0);
    ob_irqs_reset(f->irqs);
}

/* Whatever the test has done with its eventfds, all that were handed over are closed again. */
static inline void fixture_teardown(struct fixture *f)
{
    ob_irqs_free(f->irqs);
    free(f->state);
    ob_pci_layout_free(f->layout);
    assert_int_equal(open_descriptors(), f->open_before);
}

/* A write to configuration space, and its effect on interrupts. */
static inline void fixture_write(struct fixture *f, unsigned off, unsigned len, uint32_t value)
{
    struct ob_pci_change change;

    assert_int_equal(ob_pci_config_write(f->layout, f->config, off, len, &value, &change), 0);
    ob_irqs_config(f->irqs, f->config);
}

static inline void command(struct fixture *f, uint32_t value)
{
    fixture_write(f, PCI_COMMAND, 2, value);
}

static inline void msix_control(struct fixture *f, uint32_t value)
{
    fixture_write(f, f->layout->msix + PCI_MSIX_FLAGS, 2, value);
}

static inline void power_state(struct fixture *f, uint32_t value)
{
    fixture_write(f, f->layout->pm + PCI_PM_CTRL, 2, value);
}

static inline int new_eventfd(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

/* Gives an eventfd to a vector and keeps another descriptor of it, which is returned. */
static inline int give(struct fixture *f, uint32_t index, uint32_t vector)
{
    int fd = new_eventfd(), mine = dup(fd);

    assert_true(mine >= 0);
    assert_int_equal(
        ob_irqs_set(f->irqs, index, vector, 1, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, NULL, &fd, 1),
        0);
    assert_int_equal(fd, -1);
    return mine;
}

static inline void take(struct fixture *f, uint32_t index, uint32_t vector)
{
    assert_int_equal(
        ob_irqs_set(f->irqs, index, vector, 1, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, NULL, NULL, 0),
        0);
}

static inline void set_now(struct fixture *f, uint32_t index, uint32_t action)
{
    assert_int_equal(ob_irqs_set(f->irqs, index, 0, 1, VFIO_IRQ_SET_DATA_NONE | action, NULL, NULL, 0), 0);
}

/* How often it was signalled since the last look. */
static inline unsigned signalled(int fd)
{
    uint64_t value = 0;

    if (read(fd, &value, sizeof(value)) < 0)
        assert_int_equal(errno, EAGAIN);
    return (unsigned)value;
}

static inline uint64_t pending_bits(const struct fixture *f)
{
    uint64_t bits;

    assert_int_equal(ob_irqs_pba_read(f->irqs, 0, 8, &bits), 0);
    return bits;
}

enum { ON = PCI_MSIX_FLAGS_ENABLE, MASKALL = PCI_MSIX_FLAGS_MASKALL };

static inline void write_control(struct fixture *f, unsigned vector, uint32_t value)
{
    assert_int_equal(ob_irqs_table_write(f->irqs, vector * 16 + 12, 4, &value), 0);
}

static inline void level(struct fixture *f, unsigned vector, bool on)
{
    assert_int_equal(ob_irqs_level(f->irqs, vector, on), 0);
}

#endif
