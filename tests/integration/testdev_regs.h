/* testdev_regs.h: the registers of the test device (tests/integration/device), as its head describes them. */
#ifndef OB_TESTDEV_REGS_H
#define OB_TESTDEV_REGS_H

#include <stdint.h>

#define TD_BAR          0
#define TD_ID           0x00
#define TD_ID_VALUE     0x7e57de01u
#define TD_SCRATCH      0x04
#define TD_FLAGS        0x08
#define TD_FLAGS_SET    0x0c
#define TD_LATCH        0x10
#define TD_COUNT        0x14
#define TD_TICK         0x18
#define TD_LEVELS       0x1c
#define TD_PULSE        0x20
#define TD_ERROR_CODE   0x24
#define TD_ERROR        0x28
#define TD_KEEP         0x2c
#define TD_RELEASE      0x30
#define TD_KEPT         0x34
#define TD_KEEP_NS      0x38
#define TD_TIMED_OUT    0x600du
#define TD_ASYNC        0x3c
#define TD_ASYNC_VALUE  0xa5a5a5a5u
#define TD_TIMER_NS     0x40
#define TD_TIMER_FIRED  0x44
#define TD_BAR2_SUM     0x48
#define TD_BAR2_FILL    0x4c
#define TD_UNMAPS       0x54
#define TD_SESSIONS     0x58
#define TD_WIDE         0x70
#define TD_RING_ADDR    0x80
#define TD_RING_SIZE    0x88
#define TD_RING_CTRL    0x8c
#define TD_DOORBELL     0x90
#define TD_RING_DONE    0x94
#define TD_RING_RELEASE 0x98
#define TD_NOTIFY       0x9c
#define TD_RINGS        0x200

#define TD_BAR2_SIZE 0x10000
#define TD_BAR4_SIZE 0x4000
#define TD_VECTORS   8

#define TD_REGION_TYPE 0x80001234u
#define TD_MIXED       9
#define TD_WHOLE       10
#define TD_LOG         11
#define TD_ADD         12
#define TD_BELLS       13
#define TD_REGIONS     14
#define TD_NOTIFY_ERR  1u
#define TD_NOTIFY_REQ  2u
#define TD_BY_WORKER   0x100u
#define TD_FAIL        0x200u

struct td_entry {
    uint64_t src, dst;
    uint32_t len, vector, flags, status;
};
#define TD_HOLD      1u
#define TD_DONE      0x80000000u
#define TD_NO_VECTOR UINT32_MAX
#define TD_COPY_MAX  65536u

#endif
