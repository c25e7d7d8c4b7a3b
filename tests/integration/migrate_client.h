/* migrate_client.h: DEVICE_FEATURE and migration data over the raw client, for tests of both kinds. Results are those
 * of the raw client (raw/client.h): 0, the server's errno, or < 0. */
#ifndef OB_MIGRATE_CLIENT_H
#define OB_MIGRATE_CLIENT_H

#include "raw/client.h"

/* The states, by the numbers of <linux/vfio.h>; older ones lack the last two. */
enum mig_state {
    MIG_ERROR,
    MIG_STOP,
    MIG_RUNNING,
    MIG_STOP_COPY,
    MIG_RESUMING,
    MIG_RUNNING_P2P,
    MIG_PRE_COPY,
    MIG_PRE_COPY_P2P,
    MIG_STATES
};

/* One DEVICE_FEATURE: `flags` with the index, `in` bytes of data, argsz. *reply (may be NULL) is set for 0 only. */
int mig_feature(struct ob_raw *raw, uint32_t flags, const void *data, size_t in, uint32_t argsz,
                struct ob_raw_message **reply);
/* The same for GET; the reply has to have exactly `out` bytes of data. */
int mig_get(struct ob_raw *raw, uint32_t index, const void *data, size_t in, void *result, size_t out);

int mig_set_state(struct ob_raw *raw, enum mig_state state);
int mig_get_state(struct ob_raw *raw, enum mig_state *state);

/* MIG_DATA_READ of up to `size` bytes; *got: how many came. */
int mig_read(struct ob_raw *raw, void *data, uint32_t size, uint32_t *got);
int mig_write(struct ob_raw *raw, const void *data, uint32_t size);
/* Reads until no more comes, `piece` bytes at once; malloc'ed. */
int mig_read_all(struct ob_raw *raw, uint32_t piece, uint8_t **data, size_t *size);
int mig_write_all(struct ob_raw *raw, uint32_t piece, const uint8_t *data, size_t size);

int mig_log_start(struct ob_raw *raw, uint64_t page_size, const struct vfio_device_feature_dma_logging_range *ranges,
                  uint32_t n);
int mig_log_stop(struct ob_raw *raw);
/* bitmap: as many 64-bit words as the range needs. */
int mig_log_report(struct ob_raw *raw, uint64_t iova, uint64_t length, uint64_t page_size, uint64_t *bitmap);

#endif
