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

// requests returns a request for each token.
func requests(address string, tokens []string) [][]byte {
	all := make([][]byte, len(tokens))
	for i, token := range tokens {
		all[i] = request(address, token)
	}
	return all
}

// client is a number of connections to a server, each with one request at a time.
type client []connection

type connection struct {
	net.Conn
	reader *bufio.Reader
}

func dial(ctx context.Context, address string, connections int) (c client, err error) {
	for range connections {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			c.close()
			return nil, err
		}
		c = append(c, connection{conn, bufio.NewReader(conn)})
	}
	return c, nil
}

func (c client) close() {
	for _, conn := range c {
		conn.Close()
	}
}

type loaded struct {
	requests  int64
	took      time.Duration
	processor time.Duration // of this process
}

func (l loaded) perSecond() float64 { return float64(l.requests) / l.took.Seconds() }

// send has each connection send what next returns, one after the other, until that is nil. Every
// answer must have the status. It reads no more of an answer than it must, to leave the machine to
// the server.
func (c client) send(
	ctx context.Context, status int, next func() []byte,
) (loaded, error) {
	defer context.AfterFunc(ctx, c.close)()
	var requests atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, len(c))
	used, start := ownProcessorTime(), time.Now()
	for i, conn := range c {
		group.Go(func() {
			for bytes := next(); bytes != nil; bytes = next() {
				if _, errs[i] = conn.Write(bytes); errs[i] == nil {
					errs[i] = readAnswer(conn.reader, status)
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

// repeat returns a function that returns the request for some time, and once at least, however slow
// the machine is.
func repeat(request []byte, d time.Duration) func() []byte {
	end := time.Now().Add(d)
	var once atomic.Bool
	return func() []byte {
		if once.CompareAndSwap(false, true) || time.Now().Before(end) {
			return request
		}
		return nil
	}
}

// each returns a function that returns each request once.
func each(requests [][]byte) func() []byte {
	var at atomic.Int64
	return func() []byte {
		if i := at.Add(1); i <= int64(len(requests)) {
			return requests[i-1]
		}
		return nil
	}
}

func readAnswer(r *bufio.Reader, status int) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	const version = "HTTP/1.1 "
	if len(line) < len(version)+3 || string(line[len(version):len(version)+3]) !=
		strconv.Itoa(status) {
		return fmt.Errorf("the answer is %q, expected %d", bytes.TrimSpace(line), status)
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
