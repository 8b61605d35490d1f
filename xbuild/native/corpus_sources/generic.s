# Directives that every architecture's assembler knows.
	.file	"generic.s"
	.text
	.globl	entry
	.type	entry, %function
entry:
	.cfi_startproc
	.cfi_def_cfa_offset 0

	.cfi_endproc
	.size	entry, .-entry
	.section .rodata.numbers,"a",%progbits
	.balign	16
numbers:
	.float	0.1, 3.14159265358979, 1e-40, -0.0
	.double	0.1, 2.718281828459045, 5e-324, 1.7976931348623157e308
	.byte	1, 0xff, 'a', 010, 0b101
	.2byte	0x1234
	.4byte	numbers - entry
	.8byte	0x123456789abcdef0
	.uleb128 624485
	.sleb128 -123456
	.octa	0x0123456789abcdef0123456789abcdef
	.macro	counted from, to
	.4byte	\from
	.if	\to-\from
	counted	"(\from+1)", \to
	.endif
	.endm
	counted	0, 9
	.rept	5
	.string	"repeated \"text\"\n"
	.endr
	.irp	value, 3, 5, 7
	.2byte	\value * \value
	.endr
	.section .rodata.str1.1,"aMS",%progbits,1
	.asciz	"merged"
	.asciz	"merged"
	.section .data.rel,"aw",%progbits
	.balign	8
	.weak	unknown
pointers:
	.4byte	0
	.set	length, .-pointers
	.comm	shared,64,16
	.lcomm	private,12
	.bss
	.skip	length * 3
	.section .note.GNU-stack,"",%progbits
	.ident	"corpus"
