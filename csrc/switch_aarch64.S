/* gort_switch(void **save_sp, void *load_sp) for AAPCS64; see switch_x86_64.S.
 * Saves x19..x30 and d8..d15 (160 bytes) on the stack that is left.
 */
        .text
        .globl  gort_switch
        .hidden gort_switch
        .type   gort_switch, %function
        .p2align 4
gort_switch:
        .cfi_startproc
        stp     x29, x30, [sp, #-160]!
        .cfi_def_cfa_offset 160
        .cfi_offset x29, -160
        .cfi_offset x30, -152
        stp     x19, x20, [sp, #16]
        .cfi_offset x19, -144
        .cfi_offset x20, -136
        stp     x21, x22, [sp, #32]
        .cfi_offset x21, -128
        .cfi_offset x22, -120
        stp     x23, x24, [sp, #48]
        .cfi_offset x23, -112
        .cfi_offset x24, -104
        stp     x25, x26, [sp, #64]
        .cfi_offset x25, -96
        .cfi_offset x26, -88
        stp     x27, x28, [sp, #80]
        .cfi_offset x27, -80
        .cfi_offset x28, -72
        stp     d8, d9, [sp, #96]
        stp     d10, d11, [sp, #112]
        stp     d12, d13, [sp, #128]
        stp     d14, d15, [sp, #144]
        mov     x9, sp
        str     x9, [x0]
        mov     sp, x1
        ldp     x19, x20, [sp, #16]
        ldp     x21, x22, [sp, #32]
        ldp     x23, x24, [sp, #48]
        ldp     x25, x26, [sp, #64]
        ldp     x27, x28, [sp, #80]
        ldp     d8, d9, [sp, #96]
        ldp     d10, d11, [sp, #112]
        ldp     d12, d13, [sp, #128]
        ldp     d14, d15, [sp, #144]
        ldp     x29, x30, [sp], #160
        .cfi_def_cfa_offset 0
        .cfi_restore x29
        .cfi_restore x30
        br      x30
        .cfi_endproc
        .size   gort_switch, .-gort_switch

/* gort_call_on(void *top, void (*fn)(void *), void *arg) */
        .globl  gort_call_on
        .hidden gort_call_on
        .type   gort_call_on, %function
        .p2align 4
gort_call_on:
        .cfi_startproc
        stp     x29, x30, [sp, #-16]!
        .cfi_def_cfa_offset 16
        .cfi_offset x29, -16
        .cfi_offset x30, -8
        mov     x29, sp
        .cfi_def_cfa x29, 16
        mov     sp, x0
        mov     x0, x2
        blr     x1
        mov     sp, x29
        ldp     x29, x30, [sp], #16
        .cfi_def_cfa sp, 0
        .cfi_restore x29
        .cfi_restore x30
        ret
        .cfi_endproc
        .size   gort_call_on, .-gort_call_on

        .globl  gort_g_tramp
        .hidden gort_g_tramp
        .type   gort_g_tramp, %function
        .p2align 4
        nop
gort_g_tramp:
        .cfi_startproc
        .cfi_undefined x30
        mov     x29, xzr
        mov     x30, xzr
        bl      g_entry
        brk     #0
        .cfi_endproc
        .size   gort_g_tramp, .-gort_g_tramp
/* The same for the scheduler stack of the main thread's M. */
        .globl  gort_g0_tramp
        .hidden gort_g0_tramp
        .type   gort_g0_tramp, %function
        .p2align 4
        nop
gort_g0_tramp:
        .cfi_startproc
        .cfi_undefined x30
        mov     x29, xzr
        mov     x30, xzr
        bl      g0_entry
        brk     #0
        .cfi_endproc
        .size   gort_g0_tramp, .-gort_g0_tramp
        .section .note.GNU-stack,"",%progbits
