/* driver.c: beginning and end of a driver, configuration space, errors, reset and power. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "driver/driver.h"

#define DEFAULT_TIMEOUT_MS 10000
#define FIND_LIMIT         48  /* capabilities of 4 bytes at least, in 192 bytes */
#define FIND_EXT_LIMIT     960 /* of 4 bytes at least, in 3840 */
#define FLR_TIMEOUT_MS     1000
#define SPIN_TURNS         64
#define BACK_OFF_MAX_US    1000

/* --- Small things ------------------------------------------------------------------------------------------------ */

int64_t ob_driver_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int ob_driver_left(int64_t deadline)
{
    int64_t left = deadline - ob_driver_now();

    return left > 0 ? (int)left : 0;
}

void ob_driver_back_off(unsigned turn)
{
    unsigned us = turn < SPIN_TURNS ? 0 : (turn - SPIN_TURNS + 1) * 10;

    if (us > BACK_OFF_MAX_US)
        us = BACK_OFF_MAX_US;
    if (us)
        nanosleep(&(struct timespec){ .tv_nsec = (long)us * 1000 }, NULL);
}

int ob_driver_words(char *text, char **words, unsigned room)
{
    char *rest = NULL;
    unsigned n = 0;

    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        if (n + 1 >= room)
            return -E2BIG;
        words[n++] = word;
    }
    words[n] = NULL;
    return (int)n;
}

int ob_driver_why(char *why, int err, const char *format, ...)
{
    va_list args;

    if (why) {
        va_start(args, format);
        vsnprintf(why, OB_DRIVER_WHY, format, args);
        va_end(args);
    }
    return err;
}

int ob_driver_failed(struct ob_driver *driver, int err, const char *format, ...)
{
    va_list args;
    int n;

    if (driver->error)
        return err;
    driver->error = err;
    va_start(args, format);
    n = vsnprintf(driver->failure, sizeof(driver->failure), format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof(driver->failure)) {
        const char *why = driver->ops->why(driver);

        snprintf(driver->failure + n, sizeof(driver->failure) - (size_t)n, ": %s%s%s", strerror(-err), *why ? ": " : "",
                 why);
    }
    return err;
}

int ob_driver_error(struct ob_driver *driver, const char **what)
{
    int err = driver->error;

    memcpy(driver->told, driver->failure, sizeof(driver->told));
    driver->error = 0;
    driver->failure[0] = 0;
    if (what && err)
        *what = driver->told;
    return err;
}

/* --- Configuration space ----------------------------------------------------------------------------------------- */

static uint32_t config_access(struct ob_driver *driver, bool write, unsigned off, unsigned width, uint32_t val)
{
    int err = off % width || off + width > driver->config_size ? -EINVAL
                                                               : driver->ops->config(driver, write, off, width, &val);

    if (!err)
        return val;
    ob_driver_failed(driver, err, "%s of %u bytes at 0x%x of configuration space", write ? "write" : "read", width,
                     off);
    return UINT32_MAX;
}

uint8_t ob_config_read8(struct ob_driver *driver, unsigned off)
{
    return (uint8_t)config_access(driver, false, off, 1, 0);
}

uint16_t ob_config_read16(struct ob_driver *driver, unsigned off)
{
    return (uint16_t)config_access(driver, false, off, 2, 0);
}

uint32_t ob_config_read32(struct ob_driver *driver, unsigned off)
{
    return config_access(driver, false, off, 4, 0);
}

void ob_config_write8(struct ob_driver *driver, unsigned off, uint8_t val)
{
    config_access(driver, true, off, 1, val);
}

void ob_config_write16(struct ob_driver *driver, unsigned off, uint16_t val)
{
    config_access(driver, true, off, 2, val);
}

void ob_config_write32(struct ob_driver *driver, unsigned off, uint32_t val)
{
    config_access(driver, true, off, 4, val);
}

/* PCI 3.0, 6.7: pointers are dword aligned, their two lowest bits to be masked, and lead beyond the header. */
int ob_find_capability(struct ob_driver *driver, uint8_t id)
{
    unsigned at;

    if (!(ob_config_read16(driver, PCI_STATUS) & PCI_STATUS_CAP_LIST))
        return -ENOENT;
    at = ob_config_read8(driver, PCI_CAPABILITY_LIST) & ~3u;
    for (unsigned turn = 0; at; turn++) {
        if (turn == FIND_LIMIT || at < PCI_STD_HEADER_SIZEOF)
            return -EPROTO;
        if (ob_config_read8(driver, at + PCI_CAP_LIST_ID) == id)
            return (int)at;
        at = ob_config_read8(driver, at + PCI_CAP_LIST_NEXT) & ~3u;
    }
    return -ENOENT;
}

/* PCI Express 7.6.3: the list begins at 0x100; a header of zero there says that there is none. */
int ob_find_extended_capability(struct ob_driver *driver, uint16_t id)
{
    unsigned at = PCI_CFG_SPACE_SIZE;

    if (driver->config_size <= PCI_CFG_SPACE_SIZE)
        return -ENOENT;
    for (unsigned turn = 0; at; turn++) {
        uint32_t header;

        if (turn == FIND_EXT_LIMIT || at < PCI_CFG_SPACE_SIZE || at + 4 > driver->config_size)
            return -EPROTO;
        header = ob_config_read32(driver, at);
        if (header == 0 || header == UINT32_MAX)
            return -ENOENT;
        if (PCI_EXT_CAP_ID(header) == id)
            return (int)at;
        at = PCI_EXT_CAP_NEXT(header);
    }
    return -ENOENT;
}

int ob_driver_bus_master(struct ob_driver *driver, bool on)
{
    uint16_t command = ob_config_read16(driver, PCI_COMMAND);

    if (driver->error)
        return driver->error;
    command = (uint16_t)(on ? command | PCI_COMMAND_MASTER : command & ~PCI_COMMAND_MASTER);
    ob_config_write16(driver, PCI_COMMAND, command);
    return driver->error;
}

/* --- Beginning and end ------------------------------------------------------------------------------------------- */

static const struct way {
    const char *prefix;
    int kind; /* of ob_qemu_device, or -1: unix, -2: spawn */
} ways[] = {
    { "unix:", -1 },
    { "spawn:", -2 },
    { "qemu:", OB_QEMU_BUILTIN },
    { "qemu-unix:", OB_QEMU_UNIX },
    { "qemu-spawn:", OB_QEMU_SPAWN },
};

static int reach(const char *target, const struct ob_driver_options *options, struct ob_driver **driver, char *why)
{
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        size_t len = strlen(ways[i].prefix);

        if (strncmp(target, ways[i].prefix, len) != 0)
            continue;
        if (target[len] == 0)
            return ob_driver_why(why, -EINVAL, "target %s says nothing after the colon", target);
        if (ways[i].kind < 0)
            return ob_direct_open(ways[i].kind == -2, target + len, options, driver, why);
        return ob_bus_open((enum ob_qemu_device)ways[i].kind, target + len, options, driver, why);
    }
    return ob_driver_why(why, -EINVAL, "target %s: begin with unix:, spawn:, qemu:, qemu-unix: or qemu-spawn:", target);
}

/* What the device is, before anything is done to it. */
static int check_device(struct ob_driver *driver, char *why)
{
    uint16_t vendor = ob_config_read16(driver, PCI_VENDOR_ID);
    uint8_t type = ob_config_read8(driver, PCI_HEADER_TYPE) & 0x7f;

    if (driver->error)
        return ob_driver_why(why, driver->error, "%s", driver->failure);
    if (vendor == UINT16_MAX)
        return ob_driver_why(why, -ENODEV, "there is no device: its vendor reads as ffff");
    if (type != PCI_HEADER_TYPE_NORMAL)
        return ob_driver_why(why, -ENOTSUP, "header type %u: only devices of type 0 can be driven", type);
    if (ob_find_capability(driver, PCI_CAP_ID_EXP) == -ENOENT)
        driver->config_size = PCI_CFG_SPACE_SIZE;
    return 0;
}

int ob_driver_open(const char *target, const struct ob_driver_options *options, struct ob_driver **driver, char *why,
                   size_t why_size)
{
    struct ob_driver_options chosen = options ? *options : (struct ob_driver_options){ .timeout_ms = 0 };
    char line[OB_DRIVER_WHY] = "";
    struct ob_driver *d = NULL;
    int err;

    if (chosen.timeout_ms <= 0)
        chosen.timeout_ms = DEFAULT_TIMEOUT_MS;
    err = reach(target, &chosen, &d, line);
    if (!err) {
        d->timeout_ms = chosen.timeout_ms;
        err = check_device(d, line);
        if (!err)
            err = ob_driver_size_bars(d, line);
        if (!err)
            err = ob_driver_place_bars(d, line);
        if (err)
            ob_driver_close(d);
    }
    if (why && why_size)
        snprintf(why, why_size, "%s", err ? line : "");
    if (!err)
        *driver = d;
    return err;
}

void ob_driver_close(struct ob_driver *driver)
{
    if (!driver)
        return;
    ob_driver_irqs(driver, OB_DRIVER_NO_IRQS, 0);
    ob_driver_free_blocks(driver);
    driver->ops->close(driver);
}

struct ob_client *ob_driver_client(struct ob_driver *driver)
{
    return driver->ops->client ? driver->ops->client(driver) : NULL;
}

/* --- Reset and power --------------------------------------------------------------------------------------------- */

int ob_driver_reset(struct ob_driver *driver)
{
    int err = ob_driver_irqs(driver, OB_DRIVER_NO_IRQS, 0);

    if (!err)
        err = driver->ops->reset(driver);
    if (!err) {
        ob_driver_write_bars(driver);
        err = driver->error;
    }
    return err;
}

/* PCI Express 6.6.2. A device may answer with all ones until it is done. */
int ob_driver_flr(struct ob_driver *driver)
{
    int cap = ob_find_capability(driver, PCI_CAP_ID_EXP), err;
    int64_t deadline = ob_driver_now() + FLR_TIMEOUT_MS;
    uint16_t control;

    if (cap == -EPROTO)
        return cap;
    if (cap < 0 || !(ob_config_read32(driver, (unsigned)cap + PCI_EXP_DEVCAP) & PCI_EXP_DEVCAP_FLR))
        return driver->error ? driver->error : -ENOTSUP;
    err = ob_driver_irqs(driver, OB_DRIVER_NO_IRQS, 0);
    if (err)
        return err;
    control = ob_config_read16(driver, (unsigned)cap + PCI_EXP_DEVCTL);
    ob_config_write16(driver, (unsigned)cap + PCI_EXP_DEVCTL, control | PCI_EXP_DEVCTL_BCR_FLR);
    for (unsigned turn = 0; ob_config_read16(driver, PCI_VENDOR_ID) == UINT16_MAX && !driver->error; turn++) {
        if (!ob_driver_left(deadline))
            return -ETIMEDOUT;
        ob_driver_back_off(turn);
    }
    ob_driver_write_bars(driver);
    return driver->error;
}

/* PCI Power Management 1.2, 3.2.4 and 5.4: without No_Soft_Reset, D3hot to D0 resets configuration space. */
int ob_driver_power(struct ob_driver *driver, unsigned state)
{
    int cap = ob_find_capability(driver, PCI_CAP_ID_PM);
    uint16_t control, old;

    if (state != 0 && state != 3)
        return -EINVAL;
    if (cap < 0)
        return driver->error ? driver->error : cap == -EPROTO ? cap : -ENOTSUP;
    control = ob_config_read16(driver, (unsigned)cap + PCI_PM_CTRL);
    old = control & PCI_PM_CTRL_STATE_MASK;
    ob_config_write16(driver, (unsigned)cap + PCI_PM_CTRL,
                      (uint16_t)((control & ~(PCI_PM_CTRL_STATE_MASK | PCI_PM_CTRL_PME_STATUS)) | state));
    if (state == 0 && old == 3 && !(control & PCI_PM_CTRL_NO_SOFT_RESET)) {
        int err = ob_driver_irqs(driver, OB_DRIVER_NO_IRQS, 0);

        if (err)
            return err;
        ob_driver_write_bars(driver);
    }
    return driver->error;
}
