/* server_checks.c: the list of the tables of checks of servers; each lies in a file of its area, server_AREA.c. */
#include "check.h"

#define TABLES(X) X(header) X(info) X(map)

#define X(area) extern const struct check server_##area##_checks[];
TABLES(X)
#undef X

const struct check *const server_checks[] = {
#define X(area) server_##area##_checks,
    TABLES(X)
#undef X
        NULL,
};
