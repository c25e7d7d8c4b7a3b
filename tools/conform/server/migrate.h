/* migrate.h: what the checks of features and migration have in common: features, states, streams, and what a device
 * looks like from outside. */
#ifndef CONFORM_MIGRATE_H
#define CONFORM_MIGRATE_H

#include "exerciser.h"

#define FEATURE_GET   VFIO_DEVICE_FEATURE_GET
#define FEATURE_SET   VFIO_DEVICE_FEATURE_SET
#define FEATURE_PROBE VFIO_DEVICE_FEATURE_PROBE

/* Of DEVICE_FEATURE (VU-FEAT). */
enum { MIGRATION = 1, DEVICE_STATE = 2, LOG_START = 6, LOG_STOP = 7, LOG_REPORT = 8 };

/* Of migration (VU-MIG-4). <linux/vfio.h> has not always had the last two. */
enum { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P, STATES };

/* call() of a command that servers need not have. One that has it not may be out of step after its refusal, so the
 * connection is made anew. */
int optional_call(struct judge *j, uint16_t command, const void *payload, size_t size, struct ob_raw_message **reply);
/* DEVICE_FEATURE: `flags` with the feature's number. 0 or an errno. */
int feature(struct judge *j, uint32_t flags, uint32_t argsz, const void *data, size_t size,
            struct ob_raw_message **reply);

/* --- States ------------------------------------------------------------------------------------------------------ */

/* "STOP", or "no state". */
const char *state_name(uint32_t state);
uint32_t state_get(struct judge *j);
/* SET: 0 or an errno. */
int state_set(struct judge *j, uint32_t state);
/* SET, which has to succeed, after which GET has to name that state. */
void state_go(struct judge *j, uint32_t state);
/* GET has to name that state. */
void want_state(struct judge *j, uint32_t state, const char *when);

/* --- Streams ----------------------------------------------------------------------------------------------------- */

struct stream {
    uint8_t *bytes;
    size_t size;
};

/* A piece that both sides take. */
uint32_t stream_piece(struct judge *j);
/* MIG_DATA_READ of `size` bytes: 0 or an errno; *count: how many came, whose bytes are at *bytes. */
int data_read(struct judge *j, uint32_t size, uint8_t **bytes, uint32_t *count);
/* MIG_DATA_WRITE: 0 or an errno. */
int data_write(struct judge *j, const uint8_t *bytes, uint32_t size);
/* Reads `most` bytes, or less if no more comes, behind those that there are. */
void stream_read_some(struct judge *j, size_t most, struct stream *stream);
/* Reads until no more comes, 64 pieces of that size first, then large ones. */
void stream_read(struct judge *j, uint32_t piece, struct stream *stream);
/* Writes all of it in the same way: 0, or the errno of the first refusal. */
int stream_write(struct judge *j, uint32_t piece, const struct stream *stream);
/* A stream of the device, which is in RUNNING and goes to STOP. */
struct stream stream_save(struct judge *j);
/* From STOP to RESUMING, with all of the stream written. */
void stream_load(struct judge *j, const struct stream *stream);
/* The first bytes of it. */
struct stream stream_head(const struct stream *stream, size_t size);
bool stream_same(const struct stream *a, const struct stream *b);

/* --- What a device looks like ------------------------------------------------------------------------------------ */

/* Configuration space, memory that clients map, and registers of devices that are known. */
struct image {
    uint8_t *config, *memory, *registers;
    size_t config_size, memory_size, registers_size;
};

/* Brings it to RUNNING, by whatever works, resets it and enables it. Whether it is in RUNNING then. */
bool device_rescue(struct judge *j);
/* The same; if nothing works, with a new process. */
void device_fresh(struct judge *j);
/* The same, for a check; what it then looks like is for device_end(). Skips the check if the device does not get
 * through a migration with its own stream: the checks of the transitions on that way say where it fails. */
struct image device_begin(struct judge *j);
/* The same for the check of a transition, or of GET, which is made if that is what fails. */
struct image device_begin_arc(struct judge *j, uint32_t from, uint32_t to);
struct image device_begin_get(struct judge *j);
/* A stream was refused, by a write or by the transition out of RESUMING: the state that the device is in. If it is
 * neither RESUMING nor ERROR, its registers have to be as they were found (VU-MIG-34). */
uint32_t want_refused_stream(struct judge *j, const struct image *found, const char *what);
/* Puts back the memory that was marked; any state but ERROR. */
void device_end(struct judge *j, const struct image *found);
/* Changes all of that; another seed, from 1 to 255, changes it again. The device is in RUNNING. */
void image_mark(struct judge *j, uint8_t seed);
struct image image_take(struct judge *j);
/* The device, in RUNNING, has to look like that. Parts of size 0 are not looked at. */
void want_image(struct judge *j, const struct image *wanted, const char *when);
/* But for configuration space, which a stream need not hold (VU-MIG-43). */
void want_device(struct judge *j, const struct image *wanted, const char *when);
/* Its registers have to; memory may survive a reset, and configuration space too. */
void want_registers(struct judge *j, const struct image *wanted, const char *when);

#endif
