/* checks.c: the list of the tables of checks of servers; each lies in a file of its area, AREA.c. */
#include "../options.h"
#include "check.h"

/* clang-format off: a line for each area. */
#define TABLES(X)       \
    X(connection)       \
    X(connection_end)   \
    X(connection_fds)   \
    X(connection_load)  \
    X(dma)              \
    X(dma_replies)      \
    X(feature)          \
    X(header)           \
    X(header_dma)       \
    X(header_errors)    \
    X(header_sizes)     \
    X(header_skips)     \
    X(info)             \
    X(io_fds)           \
    X(irq)              \
    X(log)              \
    X(log_pages)        \
    X(log_reports)      \
    X(map)              \
    X(map_memory)       \
    X(mig_data)         \
    X(mig_data_hostile) \
    X(migration)        \
    X(migration_arcs)   \
    X(migration_ends)   \
    X(migration_still)  \
    X(migration_stream) \
    X(multi)            \
    X(pci)              \
    X(pci_capabilities) \
    X(pci_interrupts)   \
    X(read)             \
    X(region)           \
    X(region_caps)      \
    X(region_memory)    \
    X(reset)            \
    X(reset_migration)  \
    X(set_irqs)         \
    X(set_irqs_device)  \
    X(set_irqs_signals) \
    X(twin)             \
    X(unmap)            \
    X(unmap_memory)     \
    X(version)          \
    X(version_first)    \
    X(version_json)     \
    X(version_limits)   \
    X(write)            \
    X(write_config)     \
    X(write_posted)
/* clang-format on */

#define X(area) extern const struct check server_##area##_checks[];
TABLES(X)
#undef X

const struct check *const server_checks[] = {
#define X(area) server_##area##_checks,
    TABLES(X)
#undef X
        NULL,
};

const struct check_name *server_check(unsigned n)
{
    for (unsigned i = 0; server_checks[i] != NULL; i++) {
        for (const struct check *check = server_checks[i]; check->is.name != NULL; check++) {
            if (n-- == 0)
                return &check->is;
        }
    }
    return NULL;
}
