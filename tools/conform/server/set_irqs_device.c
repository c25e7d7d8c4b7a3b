/* set_irqs_device.c: VU-SET: interrupts that a device raises: to whom they go, masks, what is due later. */
#include "irqs.h"

#include <time.h>
#include <unistd.h>

#define EXERCISED 8u /* vectors of a type that are raised */

static unsigned exercised(const struct judge *j, uint32_t index)
{
    const unsigned n = irqs_vectors(j, index);

    return n < EXERCISED ? n : EXERCISED;
}

/* Runs for each type that this device can be made to interrupt by, with eventfds. */
static void each_type(struct judge *j, void (*run)(struct judge *j, uint32_t index, const int *fds))
{
    for (uint32_t i = INTX; i <= MSIX; i++) {
        if (j->facts.exerciser->irqs & 1u << i && j->facts.irq[i].count > 0)
            run(j, i, irqs_ready(j, i));
    }
}

/* --- To whom it goes --------------------------------------------------------------------------------------------- */

static void signals_own(struct judge *j, uint32_t index, const int *fds)
{
    for (unsigned i = 0; i < exercised(j, index); i++) {
        device_raise(j, index, i);
        irqs_want_others_silent(j, fds, irqs_vectors(j, index), i);
        want_one(j, fds[i], "the device raised vector %u of index %u", i, index);
        device_lower(j, index, i);
        want_none(j, fds[i], "the device lowered vector %u of index %u", i, index);
        if (j->facts.irq[index].flags & VFIO_IRQ_INFO_AUTOMASKED)
            irqs_do(j, UNMASK, index, i, 1);
    }
}

static void set_device(struct judge *j)
{
    each_type(j, signals_own);
}

static void adds_one(struct judge *j, uint32_t index, const int *fds)
{
    uint64_t count;

    for (unsigned i = 0; i < 3; i++) {
        device_raise(j, index, 0);
        device_lower(j, index, 0);
        if (j->facts.irq[index].flags & VFIO_IRQ_INFO_AUTOMASKED)
            irqs_do(j, UNMASK, index, 0, 1);
    }
    count = want_signal(j, fds[0], "the device raised an interrupt three times");
    want_alive(j, "GET_INFO");
    count += signals(j, fds[0]);
    want(j, count == 3, "the device raised vector 0 of index %u three times, and %llu was added to the eventfd", index,
         (unsigned long long)count);
}

static void set_device_adds(struct judge *j)
{
    each_type(j, adds_one);
}

static void taken_away(struct judge *j, uint32_t index, const int *fds)
{
    irqs_take_away(j, index, 0, 1);
    device_raise(j, index, 0);
    want_none(j, fds[0], "the device raised vector 0 of index %u after its eventfd was taken away", index);
    device_lower(j, index, 0);
}

static void set_device_taken_away(struct judge *j)
{
    each_type(j, taken_away);
}

static void disabled(struct judge *j, uint32_t index, const int *fds)
{
    irqs_disable(j, index);
    device_raise(j, index, 0);
    want_none(j, fds[0], "the device raised vector 0 of index %u after all eventfds were taken away", index);
    device_lower(j, index, 0);
    irqs_assign(j, index, 0, 1, fds);
    signals(j, fds[0]); /* the server may have kept the interrupt that went nowhere (VU-SET-25) */
    device_raise(j, index, 0);
    want_signal(j, fds[0], "the device raised an interrupt after its eventfd was assigned again");
    device_lower(j, index, 0);
}

static void set_device_disabled(struct judge *j)
{
    each_type(j, disabled);
}

static void replaced(struct judge *j, uint32_t index, const int *fds)
{
    const int fd = judge_eventfd(j);

    irqs_assign(j, index, 0, 1, &fd);
    device_raise(j, index, 0);
    want_one(j, fd, "vector 0 of index %u got another eventfd, this one, and the device raised it", index);
    want_none(j, fds[0], "vector 0 of index %u got another eventfd in place of this one, and was raised", index);
    device_lower(j, index, 0);
}

static void set_device_replaced(struct judge *j)
{
    each_type(j, replaced);
}

static void late(struct judge *j, uint32_t index)
{
    const int fd = judge_eventfd(j);

    irqs_on(j, index);
    device_raise(j, index, 0);
    irqs_assign(j, index, 0, 1, &fd);
    want_signal(j, fd, "an interrupt was raised before its vector got this eventfd");
    device_lower(j, index, 0);
}

static void set_late_message(struct judge *j)
{
    const uint32_t index = device_irq(j);

    if (index == INTX)
        judge_skip(j, "no known way to make this device send messages");
    late(j, index);
}

static void set_late_intx(struct judge *j)
{
    device_needs(j, INTX);
    late(j, INTX);
}

/* --- Masks ------------------------------------------------------------------------------------------------------- */

static void set_mask(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    irqs_do(j, MASK, INTX, 0, 1);
    device_raise(j, INTX, 0);
    want_none(j, fd, "INTx was masked and raised");
    device_lower(j, INTX, 0);
    device_raise(j, INTX, 0);
    want_none(j, fd, "INTx was masked, raised, lowered and raised");
    device_lower(j, INTX, 0);
}

static void set_mask_bool(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    irqs_bool(j, MASK, INTX, 0, 1, (const uint8_t[]){ 1 });
    device_raise(j, INTX, 0);
    want_none(j, fd, "INTx was masked by a DATA_BOOL of 1 and raised");
    irqs_bool(j, UNMASK, INTX, 0, 1, (const uint8_t[]){ 1 });
    want_signal(j, fd, "INTx was unmasked by a DATA_BOOL of 1");
    device_lower(j, INTX, 0);
}

static void set_mask_bool_zero(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    irqs_bool(j, MASK, INTX, 0, 1, (const uint8_t[]){ 0 });
    device_raise(j, INTX, 0);
    want_signal(j, fd, "INTx was not masked, by a DATA_BOOL of 0, and raised");
    device_lower(j, INTX, 0);
}

static void set_unmask_bool_zero(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    irqs_do(j, MASK, INTX, 0, 1);
    device_raise(j, INTX, 0);
    irqs_bool(j, UNMASK, INTX, 0, 1, (const uint8_t[]){ 0 });
    want_none(j, fd, "INTx was masked, raised, and not unmasked, by a DATA_BOOL of 0");
    device_lower(j, INTX, 0);
}

static void set_unmask_due(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    irqs_do(j, MASK, INTX, 0, 1);
    device_raise(j, INTX, 0);
    want_none(j, fd, "INTx was masked and raised");
    irqs_do(j, UNMASK, INTX, 0, 1);
    want_one(j, fd, "INTx was unmasked while its condition holds");
    device_lower(j, INTX, 0);
}

/* The mask counts what it is told, not how often. */
static void set_mask_twice(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    irqs_do(j, MASK, INTX, 0, 1);
    irqs_do(j, MASK, INTX, 0, 1);
    device_raise(j, INTX, 0);
    irqs_do(j, UNMASK, INTX, 0, 1);
    want_signal(j, fd, "INTx was masked twice and unmasked once");
    device_lower(j, INTX, 0);
}

static void automasked(struct judge *j, uint32_t index, const int *fds)
{
    if (!(j->facts.irq[index].flags & VFIO_IRQ_INFO_AUTOMASKED))
        return;
    device_raise(j, index, 0);
    want_one(j, fds[0], "index %u was raised", index);
    device_lower(j, index, 0);
    device_raise(j, index, 0);
    want_none(j, fds[0], "index %u, which is AUTOMASKED, was signalled, lowered and raised again", index);
    irqs_do(j, UNMASK, index, 0, 1);
    want_one(j, fds[0], "index %u was unmasked after it had masked itself", index);
    device_lower(j, index, 0);
}

static void set_automasked(struct judge *j)
{
    each_type(j, automasked);
}

/* --- Masks by eventfd -------------------------------------------------------------------------------------------- */

static void write_event(struct judge *j, int fd)
{
    static const uint64_t one = 1;

    want(j, write(fd, &one, sizeof(one)) == sizeof(one), "the judge cannot write an eventfd: %s", strerror(errno));
}

/* Others than MASKABLE types need not take it, whatever they make of MASK and UNMASK. */
static int mask_eventfd(struct judge *j, uint32_t action)
{
    const int fd = judge_eventfd(j);

    if (!(j->facts.irq[INTX].flags & VFIO_IRQ_INFO_MASKABLE))
        judge_skip(j, "INTx is not MASKABLE");
    if (irqs_set(j, &(struct irq_set){ EVENTFD | action, INTX, 0, 1, .fds = &fd, .nfds = 1 }) != 0)
        judge_skip(j, "eventfds for MASK or UNMASK are refused");
    return fd;
}

static void set_unmask_eventfd(struct judge *j)
{
    const int fd = irqs_intx(j), unmask = mask_eventfd(j, UNMASK);

    device_raise(j, INTX, 0);
    want_one(j, fd, "INTx was raised");
    write_event(j, unmask);
    want_one(j, fd, "the eventfd for UNMASK was written while INTx's condition holds");
    write_event(j, unmask);
    want_one(j, fd, "the eventfd for UNMASK was written a second time");
    device_lower(j, INTX, 0);
}

static void set_unmask_taken_away(struct judge *j)
{
    const int fd = irqs_intx(j), unmask = mask_eventfd(j, UNMASK);

    irqs_done(j, &(struct irq_set){ .flags = EVENTFD | UNMASK, .index = INTX, .count = 1 });
    device_raise(j, INTX, 0);
    want_signal(j, fd, "INTx was raised");
    write_event(j, unmask);
    want_none(j, fd, "the eventfd for UNMASK was taken away and written");
    irqs_do(j, UNMASK, INTX, 0, 1);
    want_signal(j, fd, "INTx was unmasked by a message after the eventfd for UNMASK was taken away");
    device_lower(j, INTX, 0);
}

static void set_mask_eventfd(struct judge *j)
{
    const int fd = irqs_intx(j), mask = mask_eventfd(j, MASK);

    /* Nothing tells when a server has seen the eventfd: it is tried again as long as INTx still comes. */
    for (int waited = 0;; waited++) {
        want(j, waited < j->timeout_ms, "the eventfd for MASK was written %d times, and INTx is still signalled",
             waited);
        write_event(j, mask);
        want_alive(j, "GET_INFO");
        device_raise(j, INTX, 0);
        want_alive(j, "GET_INFO");
        if (signals(j, fd) == 0)
            break;
        device_lower(j, INTX, 0);
        irqs_do(j, UNMASK, INTX, 0, 1);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    irqs_do(j, UNMASK, INTX, 0, 1);
    want_signal(j, fd, "INTx was masked by an eventfd, raised, and unmasked by a message");
    device_lower(j, INTX, 0);
}

/* QEMU under KVM: masks, takes the eventfd away, gives it and one for UNMASK, and unmasks. */
static void set_qemu_kvm(struct judge *j)
{
    int fd = irqs_intx_with_masks(j), unmask;

    irqs_do(j, MASK, INTX, 0, 1);
    irqs_take_away(j, INTX, 0, 1);
    irqs_assign(j, INTX, 0, 1, &fd);
    unmask = mask_eventfd(j, UNMASK);
    irqs_do(j, UNMASK, INTX, 0, 1);
    for (unsigned turn = 0; turn < 3; turn++) {
        device_raise(j, INTX, 0);
        want_one(j, fd, "INTx was set up as QEMU under KVM does it, and raised");
        device_lower(j, INTX, 0);
        write_event(j, unmask);
        want_none(j, fd, "INTx's cause was cleared and the eventfd for UNMASK written");
    }
}

const struct check server_set_irqs_device_checks[] = {
    { { "set-device", "VU-SET-5", "an interrupt of the device goes to its vector's eventfd, once" },
      NEED_INTERRUPT,
      set_device },
    { { "set-device-adds", "VU-SET-5", "interrupts of the device add up in the eventfd" },
      NEED_INTERRUPT,
      set_device_adds },
    { { "set-device-taken-away", "VU-SET-6", "a device's interrupt is not signalled after its eventfd was taken away" },
      NEED_INTERRUPT,
      set_device_taken_away },
    { { "set-device-disabled", "VU-SET-9",
        "a device's interrupt is not signalled after count 0, and is when assigned" },
      NEED_INTERRUPT,
      set_device_disabled },
    { { "set-device-replaced", "VU-SET-21", "a device's interrupt goes to the eventfd that replaced another, alone" },
      NEED_INTERRUPT,
      set_device_replaced },
    { { "set-late-message", "VU-SET-25", "a message that became due without an eventfd is signalled when it gets one" },
      NEED_INTERRUPT,
      set_late_message },
    { { "set-late-intx", "VU-SET-25", "INTx that became due without an eventfd is signalled when it gets one" },
      NEED_INTERRUPT,
      set_late_intx },
    { { "set-mask", "VU-SET-14", "INTx that is masked is not signalled" }, NEED_INTERRUPT, set_mask },
    { { "set-mask-bool", "VU-SET-14", "DATA_BOOL masks and unmasks INTx" }, NEED_INTERRUPT, set_mask_bool },
    { { "set-mask-bool-zero", "VU-SET-12", "a DATA_BOOL of 0 does not mask" }, NEED_INTERRUPT, set_mask_bool_zero },
    { { "set-unmask-bool-zero", "VU-SET-12", "a DATA_BOOL of 0 does not unmask" },
      NEED_INTERRUPT,
      set_unmask_bool_zero },
    { { "set-unmask-due", "VU-SET-15", "INTx whose condition holds is signalled at its unmask" },
      NEED_INTERRUPT,
      set_unmask_due },
    { { "set-mask-twice", "VU-SET-14", "one UNMASK undoes any number of MASK" }, NEED_INTERRUPT, set_mask_twice },
    { { "set-automasked", "VU-SET-18", "an AUTOMASKED interrupt comes once until it is unmasked" },
      NEED_INTERRUPT,
      set_automasked },
    { { "set-unmask-eventfd", "VU-SET-16", "the client unmasks INTx by writing an eventfd" },
      NEED_INTERRUPT,
      set_unmask_eventfd },
    { { "set-unmask-taken-away", "VU-SET-6", "an eventfd for UNMASK that was taken away does nothing" },
      NEED_INTERRUPT,
      set_unmask_taken_away },
    { { "set-mask-eventfd", "VU-SET-16", "the client masks INTx by writing an eventfd" },
      NEED_INTERRUPT,
      set_mask_eventfd },
    { { "set-qemu-kvm", "VU-SET-16", "INTx works as QEMU under KVM sets it up" }, NEED_INTERRUPT, set_qemu_kvm },
    { { NULL, NULL, NULL }, 0, NULL },
};
