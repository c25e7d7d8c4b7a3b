/* fake_device.h: a bench for devices: the functions of <outboard/device.h> that in-tree devices use, without sockets.
 *
 * It keeps the header's promises where a device could notice: two copies of state (timers included), effects after the
 * commit, what a handler wrote undone when it fails, and death at the two ends of a commit. Time stands still until
 * fake_advance(). One thread. What a test does wrong ends it with a message. */
#ifndef FAKE_DEVICE_H
#define FAKE_DEVICE_H

#include <outboard/device.h>

/* Where the next transaction dies. */
enum fake_kill { FAKE_KILL_NO, FAKE_KILL_BEFORE_COMMIT, FAKE_KILL_AFTER_COMMIT };
/* How guest memory is reached. */
enum fake_dma { FAKE_DMA_DIRECT, FAKE_DMA_MESSAGES };

#define FAKE_MEMORY_BASE UINT64_C(0x100000)
#define FAKE_MEMORY_SIZE 0x10000u

/* A device in the state of a fresh process: reset values, ops.configure, ops.open called. NULL when it refused, with
 * its errno in *err. Options as "key=value,key=value". */
struct ob_dev *fake_new(const struct ob_device_class *cls, const char *options, int *err);
void fake_free(struct ob_dev *dev);

/* ops.run and ops.quiesce; DMA under way ends with -ENOTCONN when the session does. */
void fake_session_begin(struct ob_dev *dev);
void fake_session_end(struct ob_dev *dev);
void fake_reset(struct ob_dev *dev, enum ob_reset kind);

/* One access of 1, 2, 4 or 8 bytes. */
uint64_t fake_read(struct ob_dev *dev, unsigned bar, uint64_t off, unsigned len);
void fake_write(struct ob_dev *dev, unsigned bar, uint64_t off, unsigned len, uint64_t val);

/* The next transaction dies; fake_dead() says when it did; fake_restart() is the successor: ops.open(OB_CRASHED) and
 * ops.run on the committed state. */
void fake_kill_next(struct ob_dev *dev, enum fake_kill kill);
bool fake_dead(const struct ob_dev *dev);
void fake_restart(struct ob_dev *dev);

/* The level of vector 0, and how often it rose so far. */
bool fake_irq(const struct ob_dev *dev);
unsigned fake_irq_edges(const struct ob_dev *dev);
void fake_use_messages(struct ob_dev *dev, bool on);

/* Moves the clock and calls ops.timer() for what expired. */
void fake_advance(struct ob_dev *dev, uint64_t ns);
/* Deadline of a timer, as committed; 0: not armed. */
uint64_t fake_deadline(const struct ob_dev *dev, unsigned id);
/* Waits up to timeout_ms for descriptors given to ob_worker_fd() and calls their functions; returns how many. */
int fake_poll(struct ob_dev *dev, int timeout_ms);

/* Guest memory: FAKE_MEMORY_SIZE bytes at FAKE_MEMORY_BASE. */
uint8_t *fake_memory(struct ob_dev *dev);
void fake_dma_mode(struct ob_dev *dev, enum fake_dma mode);
void fake_bus_master(struct ob_dev *dev, bool on);
/* How many copies wait for the client; answers the oldest, with err or, if 0, by copying. */
unsigned fake_dma_waiting(const struct ob_dev *dev);
void fake_dma_answer(struct ob_dev *dev, int err);
/* Lines logged so far. */
unsigned fake_log_lines(const struct ob_dev *dev);

#endif
