#include "textflag.h"

// clock_gettime(clock, ts), called as C does.
TEXT clockGettime<>(SB), NOSPLIT|NOFRAME, $0
	MOVL $228, AX // clock_gettime
	SYSCALL
	TESTL DI, DI // CLOCK_REALTIME
	JNE done
	MOVQ ·jumped(SB), CX
	ADDQ CX, 0(SI) // tv_sec
done:
	RET

// func jumping() uintptr
TEXT ·jumping(SB), NOSPLIT, $0-8
	LEAQ clockGettime<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET
