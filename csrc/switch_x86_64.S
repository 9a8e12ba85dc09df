/* gort_switch(void **save_sp, void *load_sp): leave one stack, go on on another.
 *
 * Saves the callee-saved registers of the System V ABI on the stack that is
 * left, and its stack pointer in *save_sp. mxcsr and the x87 control word are
 * not saved: they are a thread's setting that goroutines are not to change
 * across a wait. Resumes by an indirect jump instead of ret: all stacks resume
 * at few places, which a branch predictor learns, while the return-address
 * predictor would always be wrong.
 */
        .text
        .globl  gort_switch
        .hidden gort_switch
        .type   gort_switch, @function
        .p2align 4
gort_switch:
        .cfi_startproc
        pushq   %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset %rbp, -16
        pushq   %rbx
        .cfi_def_cfa_offset 24
        .cfi_offset %rbx, -24
        pushq   %r12
        .cfi_def_cfa_offset 32
        .cfi_offset %r12, -32
        pushq   %r13
        .cfi_def_cfa_offset 40
        .cfi_offset %r13, -40
        pushq   %r14
        .cfi_def_cfa_offset 48
        .cfi_offset %r14, -48
        pushq   %r15
        .cfi_def_cfa_offset 56
        .cfi_offset %r15, -56
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        popq    %r15
        .cfi_def_cfa_offset 48
        .cfi_restore %r15
        popq    %r14
        .cfi_def_cfa_offset 40
        .cfi_restore %r14
        popq    %r13
        .cfi_def_cfa_offset 32
        .cfi_restore %r13
        popq    %r12
        .cfi_def_cfa_offset 24
        .cfi_restore %r12
        popq    %rbx
        .cfi_def_cfa_offset 16
        .cfi_restore %rbx
        popq    %rbp
        .cfi_def_cfa_offset 8
        .cfi_restore %rbp
        popq    %rcx
        .cfi_def_cfa_offset 0
        .cfi_register %rip, %rcx
        jmp     *%rcx
        .cfi_endproc
        .size   gort_switch, .-gort_switch

/* gort_call_on(void *top, void (*fn)(void *), void *arg): fn(arg) on the stack that
 * begins at top, a multiple of 16.
 */
        .globl  gort_call_on
        .hidden gort_call_on
        .type   gort_call_on, @function
        .p2align 4
gort_call_on:
        .cfi_startproc
        pushq   %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset %rbp, -16
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        movq    %rdi, %rsp
        movq    %rdx, %rdi
        call    *%rsi
        movq    %rbp, %rsp
        popq    %rbp
        .cfi_def_cfa %rsp, 8
        ret
        .cfi_endproc
        .size   gort_call_on, .-gort_call_on

/* The bottom frame of every goroutine: unwinders stop here. */
        .globl  gort_g_tramp
        .hidden gort_g_tramp
        .type   gort_g_tramp, @function
        .p2align 4
        nop
gort_g_tramp:
        .cfi_startproc
        .cfi_undefined %rip
        xorl    %ebp, %ebp
        call    g_entry
        ud2
        .cfi_endproc
        .size   gort_g_tramp, .-gort_g_tramp
/* The same for the scheduler stack of the main thread's M. */
        .globl  gort_g0_tramp
        .hidden gort_g0_tramp
        .type   gort_g0_tramp, @function
        .p2align 4
        nop
gort_g0_tramp:
        .cfi_startproc
        .cfi_undefined %rip
        xorl    %ebp, %ebp
        call    g0_entry
        ud2
        .cfi_endproc
        .size   gort_g0_tramp, .-gort_g0_tramp
        .section .note.GNU-stack,"",@progbits
