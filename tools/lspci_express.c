/* tools/lspci_express.c: prints the PCI Express capability of an endpoint as lspci(8) does (PCIe 4.0, 7.5.3). Of other
 * types, which no server of a single function has, only the type is told. */
#include "lspci.h"

#include <stdio.h>

static const char *name_of(const char *const *names, size_t count, unsigned value)
{
    return value < count && names[value] != NULL ? names[value] : "Unknown";
}
#define NAME_OF(names, value) name_of(names, sizeof(names) / sizeof(names[0]), value)

static const char *const latencies_l0s[] = {
    "<64ns", "<128ns", "<256ns", "<512ns", "<1us", "<2us", "<4us", "unlimited"
};
static const char *const latencies_l1[] = { "<1us", "<2us", "<4us", "<8us", "<16us", "<32us", "<64us", "unlimited" };
static const char *const speeds[] = { "2.5GT/s", "2.5GT/s", "5GT/s", "8GT/s", "16GT/s", "32GT/s", "64GT/s" };

static const char *speed(unsigned value)
{
    return value >= 1 && value <= 6 ? speeds[value] : "unknown";
}

static bool has_link(unsigned type)
{
    return type != PCI_EXP_TYPE_RC_END;
}

/* 7.5.3.3: with the scale of 1, values from 0xf0 on go in steps of 25 from 250, and 0xff is more than any. */
static void show_slot_power(uint32_t cap)
{
    static const double scales[] = { 1, 0.1, 0.01, 0.001 };
    unsigned value = (cap & PCI_EXP_DEVCAP_PWR_VAL) >> 18, scale = (cap & PCI_EXP_DEVCAP_PWR_SCL) >> 26;
    double watts = scale == 0 && value >= 0xf0 ? 250 + 25 * (value - 0xf0) : value * scales[scale];

    if (scale == 0 && value == 0xff)
        printf(" SlotPowerLimit >600W");
    else
        printf(" SlotPowerLimit %gW", watts);
}

static void show_device(const struct function *f, size_t at, unsigned type)
{
    uint32_t cap = reg32(f, at + PCI_EXP_DEVCAP);
    uint16_t control = reg16(f, at + PCI_EXP_DEVCTL), status = reg16(f, at + PCI_EXP_DEVSTA);

    printf("\t\tDevCap:\tMaxPayload %d bytes, PhantFunc %d", 128 << (cap & PCI_EXP_DEVCAP_PAYLOAD),
           (1 << ((cap & PCI_EXP_DEVCAP_PHANTOM) >> 3)) - 1);
    if (has_link(type))
        printf(", Latency L0s %s, L1 %s", latencies_l0s[(cap & PCI_EXP_DEVCAP_L0S) >> 6],
               latencies_l1[(cap & PCI_EXP_DEVCAP_L1) >> 9]);
    printf("\n\t\t\tExtTag%c ", flag(cap, PCI_EXP_DEVCAP_EXT_TAG));
    if (has_link(type)) {
        PRINT_BITS(cap, { PCI_EXP_DEVCAP_ATN_BUT, "AttnBtn" }, { PCI_EXP_DEVCAP_ATN_IND, "AttnInd" },
                   { PCI_EXP_DEVCAP_PWR_IND, "PwrInd" });
        putchar(' ');
    }
    PRINT_BITS(cap, { PCI_EXP_DEVCAP_RBER, "RBE" }, { PCI_EXP_DEVCAP_FLR, "FLReset" });
    if (type == PCI_EXP_TYPE_ENDPOINT)
        show_slot_power(cap);
    printf("\n\t\tDevCtl:\t");
    PRINT_BITS(control, { PCI_EXP_DEVCTL_CERE, "CorrErr" }, { PCI_EXP_DEVCTL_NFERE, "NonFatalErr" },
               { PCI_EXP_DEVCTL_FERE, "FatalErr" }, { PCI_EXP_DEVCTL_URRE, "UnsupReq" });
    printf("\n\t\t\t");
    PRINT_BITS(control, { PCI_EXP_DEVCTL_RELAX_EN, "RlxdOrd" }, { PCI_EXP_DEVCTL_EXT_TAG, "ExtTag" },
               { PCI_EXP_DEVCTL_PHANTOM, "PhantFunc" }, { PCI_EXP_DEVCTL_AUX_PME, "AuxPwr" },
               { PCI_EXP_DEVCTL_NOSNOOP_EN, "NoSnoop" });
    if (cap & PCI_EXP_DEVCAP_FLR)
        printf(" FLReset%c", flag(control, PCI_EXP_DEVCTL_BCR_FLR));
    printf("\n\t\t\tMaxPayload %d bytes, MaxReadReq %d bytes\n", 128 << ((control & PCI_EXP_DEVCTL_PAYLOAD) >> 5),
           128 << ((control & PCI_EXP_DEVCTL_READRQ) >> 12));
    printf("\t\tDevSta:\t");
    PRINT_BITS(status, { PCI_EXP_DEVSTA_CED, "CorrErr" }, { PCI_EXP_DEVSTA_NFED, "NonFatalErr" },
               { PCI_EXP_DEVSTA_FED, "FatalErr" }, { PCI_EXP_DEVSTA_URD, "UnsupReq" },
               { PCI_EXP_DEVSTA_AUXPD, "AuxPwr" }, { PCI_EXP_DEVSTA_TRPND, "TransPend" });
    putchar('\n');
}

/* What the link does, beside what it is capable of. */
static const char *compared(unsigned cap, unsigned now)
{
    return now < cap ? " (downgraded)" : now > cap ? " (overdriven)" : "";
}

static void show_link(const struct function *f, size_t at)
{
    static const char *const aspm[] = { "not supported", "L0s", "L1", "L0s L1" };
    uint32_t cap = reg32(f, at + PCI_EXP_LNKCAP);
    uint16_t control = reg16(f, at + PCI_EXP_LNKCTL), status = reg16(f, at + PCI_EXP_LNKSTA);
    unsigned states = (cap & PCI_EXP_LNKCAP_ASPMS) >> 10, wanted = control & PCI_EXP_LNKCTL_ASPMC;

    printf("\t\tLnkCap:\tPort #%u, Speed %s, Width x%u, ASPM %s", cap >> 24, speed(cap & PCI_EXP_LNKCAP_SLS),
           (cap & PCI_EXP_LNKCAP_MLW) >> 4, aspm[states]);
    if (states != 0)
        printf(", Exit Latency ");
    if (states & 1)
        printf("L0s %s", latencies_l0s[(cap & PCI_EXP_LNKCAP_L0SEL) >> 12]);
    if (states & 2)
        printf("%sL1 %s", states & 1 ? ", " : "", latencies_l1[(cap & PCI_EXP_LNKCAP_L1EL) >> 15]);
    printf("\n\t\t\t");
    PRINT_BITS(cap, { PCI_EXP_LNKCAP_CLKPM, "ClockPM" }, { PCI_EXP_LNKCAP_SDERC, "Surprise" },
               { PCI_EXP_LNKCAP_DLLLARC, "LLActRep" }, { PCI_EXP_LNKCAP_LBNC, "BwNot" },
               { 1u << 22, "ASPMOptComp" } /* 7.5.3.6: ASPM Optionality Compliance */);
    printf("\n\t\tLnkCtl:\tASPM %s%s; RCB %d bytes, ", wanted != 0 ? aspm[wanted] : "Disabled",
           wanted != 0 ? " Enabled" : "", control & PCI_EXP_LNKCTL_RCB ? 128 : 64);
    PRINT_BITS(control, { PCI_EXP_LNKCTL_LD, "Disabled" }, { PCI_EXP_LNKCTL_CCC, "CommClk" });
    printf("\n\t\t\t");
    PRINT_BITS(control, { PCI_EXP_LNKCTL_ES, "ExtSynch" }, { PCI_EXP_LNKCTL_CLKREQ_EN, "ClockPM" },
               { PCI_EXP_LNKCTL_HAWD, "AutWidDis" }, { PCI_EXP_LNKCTL_LBMIE, "BWInt" },
               { PCI_EXP_LNKCTL_LABIE, "AutBWInt" });
    printf("\n\t\tLnkSta:\tSpeed %s%s, Width x%u%s\n\t\t\t", speed(status & PCI_EXP_LNKSTA_CLS),
           compared(cap & PCI_EXP_LNKCAP_SLS, status & PCI_EXP_LNKSTA_CLS), (status & PCI_EXP_LNKSTA_NLW) >> 4u,
           compared((cap & PCI_EXP_LNKCAP_MLW) >> 4, (status & PCI_EXP_LNKSTA_NLW) >> 4u));
    PRINT_BITS(status, { 1u << 10, "TrErr" } /* PCIe 1.1: Training Error */, { PCI_EXP_LNKSTA_LT, "Train" },
               { PCI_EXP_LNKSTA_SLC, "SlotClk" }, { PCI_EXP_LNKSTA_DLLLA, "DLActive" },
               { PCI_EXP_LNKSTA_LBMS, "BWMgmt" }, { PCI_EXP_LNKSTA_LABS, "ABWMgmt" });
    putchar('\n');
}

static void show_device2(const struct function *f, size_t at, unsigned type)
{
    static const char *const ranges[16] = { "Not Supported", "Range A",   "Range B", "Range AB", NULL, NULL, "Range BC",
                                            "Range ABC",     NULL,        NULL,      NULL,       NULL, NULL, NULL,
                                            "Range BCD",     "Range ABCD" };
    static const char *const timeouts[16] = { "50us to 50ms", "50us to 100us",  "1ms to 10ms",   NULL,
                                              NULL,           "16ms to 55ms",   "65ms to 210ms", NULL,
                                              NULL,           "260ms to 900ms", "1s to 3.5s",    NULL,
                                              NULL,           "4s to 13s",      "17s to 64s",    NULL };
    static const char *const obff_caps[] = { "Not Supported", "Via message", "Via WAKE#", "Via message/WAKE#" };
    static const char *const obff_controls[] = { "Disabled", "Via message A", "Via message B", "Via WAKE#" };
    static const char *const tph[] = { "TPHComp- ExtTPHComp-", "TPHComp+ ExtTPHComp-", "", "TPHComp+ ExtTPHComp+" };
    static const char *const emergencies[] = { "Not Supported", "Dev Specific", "Form Factor Dev Specific",
                                               "Reserved" };
    uint32_t cap = reg32(f, at + PCI_EXP_DEVCAP2);
    uint16_t control = reg16(f, at + PCI_EXP_DEVCTL2);
    unsigned prefixes = cap >> 22 & 3;

    printf("\t\tDevCap2: Completion Timeout: %s, ", NAME_OF(ranges, cap & 0xf));
    PRINT_BITS(cap, { PCI_EXP_DEVCAP2_COMP_TMOUT_DIS, "TimeoutDis" }, { 1u << 10, "NROPrPrP" },
               { PCI_EXP_DEVCAP2_LTR, "LTR" });
    printf("\n\t\t\t ");
    PRINT_BITS(cap, { 1u << 16, "10BitTagComp" }, { 1u << 17, "10BitTagReq" });
    printf(" OBFF %s, ", obff_caps[cap >> 18 & 3]);
    PRINT_BITS(cap, { 1u << 20, "ExtFmt" }, { PCI_EXP_DEVCAP2_EE_PREFIX, "EETLPPrefix" });
    if (cap & PCI_EXP_DEVCAP2_EE_PREFIX)
        printf(", MaxEETLPPrefixes %u", prefixes != 0 ? prefixes : 4);
    printf("\n\t\t\t EmergencyPowerReduction %s, ", emergencies[cap >> 24 & 3]);
    PRINT_BITS(cap, { 1u << 26, "EmergencyPowerReductionInit" });
    printf("\n\t\t\t ");
    PRINT_BITS(cap, { 1u << 31, "FRS" });
    if (type == PCI_EXP_TYPE_ENDPOINT)
        printf(" %s", tph[cap >> 12 & 3]);
    printf("\n\t\t\t AtomicOpsCap: ");
    PRINT_BITS(cap, { PCI_EXP_DEVCAP2_ATOMIC_COMP32, "32bit" }, { PCI_EXP_DEVCAP2_ATOMIC_COMP64, "64bit" },
               { PCI_EXP_DEVCAP2_ATOMIC_COMP128, "128bitCAS" });
    printf("\n\t\tDevCtl2: Completion Timeout: %s, ", NAME_OF(timeouts, control & PCI_EXP_DEVCTL2_COMP_TIMEOUT));
    PRINT_BITS(control, { PCI_EXP_DEVCTL2_COMP_TMOUT_DIS, "TimeoutDis" }, { PCI_EXP_DEVCTL2_LTR_EN, "LTR" },
               { 1u << 12, "10BitTagReq" });
    printf(" OBFF %s,\n\t\t\t AtomicOpsCtl: ReqEn%c\n", obff_controls[(control & PCI_EXP_DEVCTL2_OBFF_WAKE_EN) >> 13],
           flag(control, PCI_EXP_DEVCTL2_ATOMIC_REQ));
}

static const char *supported_speeds(uint32_t cap)
{
    unsigned vector = cap >> 1 & 0x7f;

    if (vector & 0x60)
        return "RsvdP";
    if (vector & 0x10)
        return "2.5-32GT/s";
    if (vector & 0x08)
        return "2.5-16GT/s";
    if (vector & 0x04)
        return "2.5-8GT/s";
    if (vector & 0x02)
        return "2.5-5GT/s";
    return vector & 0x01 ? "2.5GT/s" : "Unknown";
}

static void show_link2(const struct function *f, size_t at)
{
    static const char half[] = "200-400mV(full-swing)/100-200mV(half-swing)";
    static const char *const margins[] = {
        "Normal Operating Range", "800-1200mV(full-swing)/400-700mV(half-swing)", half, half, half, half
    };
    static const char *const presets[] = { "-6dB de-emphasis, 0dB preshoot",     "-3.5dB de-emphasis, 0dB preshoot",
                                           "-4.4dB de-emphasis, 0dB preshoot",   "-2.5dB de-emphasis, 0dB preshoot",
                                           "0dB de-emphasis, 0dB preshoot",      "0dB de-emphasis, 1.9dB preshoot",
                                           "0dB de-emphasis, 2.5dB preshoot",    "-6.0dB de-emphasis, 3.5dB preshoot",
                                           "-3.5dB de-emphasis, 3.5dB preshoot", "0dB de-emphasis, 3.5dB preshoot" };
    static const char *const crosslinks[] = { "unsupported", "Upstream Port", "Downstream Port", "incomplete" };
    uint32_t cap = reg32(f, at + PCI_EXP_LNKCAP2);
    uint16_t control = reg16(f, at + PCI_EXP_LNKCTL2), status = reg16(f, at + PCI_EXP_LNKSTA2);

    printf("\t\tLnkCap2: Supported Link Speeds: %s, ", supported_speeds(cap));
    PRINT_BITS(cap, { PCI_EXP_LNKCAP2_CROSSLINK, "Crosslink" }, { 1u << 23, "Retimer" }, { 1u << 24, "2Retimers" },
               { 1u << 31, "DRS" });
    printf("\n\t\tLnkCtl2: Target Link Speed: %s, ", NAME_OF(speeds, control & PCI_EXP_LNKCTL2_TLS));
    PRINT_BITS(control, { PCI_EXP_LNKCTL2_ENTER_COMP, "EnterCompliance" }, { PCI_EXP_LNKCTL2_HASD, "SpeedDis" });
    printf("\n\t\t\t Transmit Margin: %s, ", NAME_OF(margins, (control & PCI_EXP_LNKCTL2_TX_MARGIN) >> 7));
    PRINT_BITS(control, { 1u << 10, "EnterModifiedCompliance" }, { 1u << 11, "ComplianceSOS" });
    printf("\n\t\t\t Compliance Preset/De-emphasis: %s\n", NAME_OF(presets, control >> 12));
    printf("\t\tLnkSta2: Current De-emphasis Level: %s, ", status & 1 ? "-3.5dB" : "-6dB");
    PRINT_BITS(status, { 1u << 1, "EqualizationComplete" }, { 1u << 2, "EqualizationPhase1" });
    printf("\n\t\t\t ");
    PRINT_BITS(status, { 1u << 3, "EqualizationPhase2" }, { 1u << 4, "EqualizationPhase3" },
               { 1u << 5, "LinkEqualizationRequest" });
    printf("\n\t\t\t ");
    PRINT_BITS(status, { 1u << 6, "Retimer" }, { 1u << 7, "2Retimers" });
    printf(" CrosslinkRes: %s\n", crosslinks[status >> 8 & 3]);
}

void show_express(const struct function *f, size_t at)
{
    static const char *const types[16] = {
        [PCI_EXP_TYPE_ENDPOINT] = "Endpoint",
        [PCI_EXP_TYPE_LEG_END] = "Legacy Endpoint",
        [PCI_EXP_TYPE_ROOT_PORT] = "Root Port",
        [PCI_EXP_TYPE_UPSTREAM] = "Upstream Port",
        [PCI_EXP_TYPE_DOWNSTREAM] = "Downstream Port",
        [PCI_EXP_TYPE_PCI_BRIDGE] = "PCI-Express to PCI/PCI-X Bridge",
        [PCI_EXP_TYPE_PCIE_BRIDGE] = "PCI/PCI-X to PCI-Express Bridge",
        [PCI_EXP_TYPE_RC_END] = "Root Complex Integrated Endpoint",
        [PCI_EXP_TYPE_RC_EC] = "Root Complex Event Collector",
    };
    uint16_t flags = reg16(f, at + PCI_EXP_FLAGS);
    unsigned type = (flags & PCI_EXP_FLAGS_TYPE) >> 4, version = flags & PCI_EXP_FLAGS_VERS;

    printf("Express ");
    if (f->verbose > 1)
        printf("(v%u) ", version);
    if (types[type] != NULL)
        printf("%s", types[type]);
    else
        printf("Unknown type %u", type);
    if (type == PCI_EXP_TYPE_ROOT_PORT || type == PCI_EXP_TYPE_DOWNSTREAM || type == PCI_EXP_TYPE_PCIE_BRIDGE)
        printf(" (Slot%c)", flag(flags, PCI_EXP_FLAGS_SLOT));
    printf(", MSI %02x\n", (flags & PCI_EXP_FLAGS_IRQ) >> 9);
    if (f->verbose < 2 ||
        (type != PCI_EXP_TYPE_ENDPOINT && type != PCI_EXP_TYPE_LEG_END && type != PCI_EXP_TYPE_RC_END))
        return;
    show_device(f, at, type);
    if (has_link(type))
        show_link(f, at);
    if (version < 2)
        return;
    show_device2(f, at, type);
    if (has_link(type))
        show_link2(f, at);
}
