/* Kills the process at a labelled step, for crash tests. */
#include "session/steps.h"

#ifdef OB_CRASH_STEPS
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const step_names[] = {
#define X(name) #name,
    OB_STEPS(X)
#undef X
};

void ob_step_passed(enum ob_step step)
{
    static unsigned passages; /* the control thread's alone */
    const char *at = getenv("OUTBOARD_CRASH_AT");
    if (!at)
        return;
    size_t len = strcspn(at, ":");
    if (strlen(step_names[step]) != len || memcmp(at, step_names[step], len) != 0)
        return;
    unsigned long wanted = at[len] ? strtoul(at + len + 1, NULL, 10) : 1;
    if (++passages == wanted)
        kill(getpid(), SIGKILL);
}
#endif
