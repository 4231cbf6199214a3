package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// request returns the bytes of a GET with a token.
func request(address, token string) []byte {
	const format = "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n"
	return fmt.Appendf(nil, format, path, address, token)
}

type loaded struct {
	requests  int64
	took      time.Duration
	processor time.Duration // of this process
}

// load has each connection send what next returns, one after the other, until that is nil. Every
// answer must be 200. It reads no more of an answer than it must, to leave the machine to the
// server.
func load(
	ctx context.Context, address string, connections int, next func() []byte,
) (loaded, error) {
	var all []net.Conn
	for range connections {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return loaded{}, err
		}
		defer conn.Close()
		all = append(all, conn)
	}
	defer context.AfterFunc(ctx, func() {
		for _, conn := range all {
			conn.Close()
		}
	})()
	var requests atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, connections)
	used, start := ownProcessorTime(), time.Now()
	for i, conn := range all {
		group.Go(func() {
			reader := bufio.NewReader(conn)
			for bytes := next(); bytes != nil; bytes = next() {
				if _, errs[i] = conn.Write(bytes); errs[i] == nil {
					errs[i] = readAnswer(reader)
				}
				if errs[i] != nil {
					return
				}
				requests.Add(1)
			}
		})
	}
	group.Wait()
	took := time.Since(start)
	return loaded{requests.Load(), took, ownProcessorTime() - used}, errors.Join(errs...)
}

func readAnswer(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the answer is %q, expected 200", bytes.TrimSpace(line))
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("the answer has no Content-Length")
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return err
}

func ownProcessorTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
