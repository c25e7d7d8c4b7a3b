/* The labelled steps of a request, where crash tests kill the process (meson option crash_steps).
 *
 * Without the option a step is nothing. With it, OUTBOARD_CRASH_AT=LABEL:N in the environment makes the Nth passage of
 * that step the last thing the process does. Between recvmsg() and `received`, and between sendmsg() and `sent`, there
 * is no step: those instructions belong to the front, which a keeper runs in a process of its own. */
#ifndef OB_SESSION_STEPS_H
#define OB_SESSION_STEPS_H

#define OB_STEPS(X)                                                 \
    X(received)  /* bytes and descriptors are in the journal */     \
    X(checked)   /* a request passed its checks */                  \
    X(executed)  /* its handler returned; nothing is current yet */ \
    X(replied)   /* the reply is in the journal, not yet current */ \
    X(copied)    /* the second copy is written, not yet current */  \
    X(committed) /* state, reply and position are current */        \
    X(signalled) /* interrupts and other effects are out */         \
    X(sending)   /* right before messages are sent */               \
    X(sent)      /* they went, and are noted as sent */

enum ob_step {
#define X(name) OB_STEP_##name,
    OB_STEPS(X)
#undef X
};

#ifdef OB_CRASH_STEPS
void ob_step_passed(enum ob_step step);
#define ob_step(name) ob_step_passed(OB_STEP_##name)
#else
#define ob_step(name) ((void)0)
#endif

#endif
