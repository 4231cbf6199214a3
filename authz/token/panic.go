package token

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// errExited is the error of a function that called [runtime.Goexit].
var errExited = errors.New("the goroutine has exited")

// protect calls f in a goroutine of its own, and returns an error if f panics or exits. It is for
// code of the program, such as an HTTP client, that is called in the background: a panic there
// would end the process, and requests would wait forever for a goroutine that has exited.
func protect[T any](f func() (T, error)) (result T, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if reason := recover(); reason != nil {
				err = panicked(reason)
			}
		}()
		err = errExited
		result, err = f()
	}()
	<-done
	return result, err
}

// panicked returns the error for a panic. Call it in the deferred function that has recovered. The
// error has the value of the panic only if it is the runtime's, because others can contain a
// request with its credentials.
func panicked(reason any) error {
	text := fmt.Sprintf("a value of type %T", reason)
	if fault, ok := reason.(runtime.Error); ok {
		text = fault.Error()
	}
	var callers [64]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers[:])])
	for panicking := false; ; {
		frame, more := frames.Next()
		inRuntime := strings.HasPrefix(frame.Function, "runtime.")
		if panicking && !inRuntime {
			return fmt.Errorf("panic in %s (%s:%d): %s", frame.Function, filepath.Base(frame.File),
				frame.Line, text)
		}
		panicking = panicking || inRuntime && strings.HasSuffix(frame.Function, "gopanic")
		if !more {
			return fmt.Errorf("panic: %s", text)
		}
	}
}
