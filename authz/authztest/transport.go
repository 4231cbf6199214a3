package authztest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
)

// inProcess calls a handler with requests as a server would.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(sent *http.Request) (resp *http.Response, err error) {
	r := sent.Clone(sent.Context())
	r.RequestURI = sent.URL.RequestURI()
	if r.URL, err = url.ParseRequestURI(r.RequestURI); err != nil {
		return nil, err
	}
	r.Host = sent.URL.Host
	r.RemoteAddr = "127.0.0.1:1"
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	defer func() {
		if v := recover(); v != nil {
			resp, err = nil, fmt.Errorf("the handler panicked: %v", v)
		}
	}()
	w := recorder{header: http.Header{}}
	p.handler.ServeHTTP(&w, r)
	w.WriteHeader(http.StatusOK)
	return &http.Response{
		StatusCode: w.status, Proto: r.Proto, ProtoMajor: 1, ProtoMinor: 1, Request: sent,
		Header: w.sent, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()),
	}, nil
}

// recorder is a ResponseWriter that stores the response.
type recorder struct {
	header, sent http.Header
	status       int
	body         bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // before are the informational ones
		w.status, w.sent = status, w.header.Clone()
	}
}

func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if _, set := w.sent["Content-Type"]; !set && w.body.Len() == 0 && len(b) > 0 {
		w.sent.Set("Content-Type", http.DetectContentType(b)) // as net/http does
	}
	return w.body.Write(b)
}

// Flush implements [http.Flusher].
func (w *recorder) Flush() { w.WriteHeader(http.StatusOK) }

// upload is a body that counts how much of it was read.
type upload struct {
	io.Reader
	length int64 // -1: unknown
	read   atomic.Int64
}

func (u *upload) Read(b []byte) (int, error) {
	n, err := u.Reader.Read(b)
	u.read.Add(int64(n))
	return n, err
}

func (u *upload) Close() error { return nil }

// endless is a body that begins like a JSON string and does not end. After some bytes it blocks
// until ctx ends, so that a server that waits for the rest does not answer in time. In process it
// ends instead, because there the number of bytes that were read is known.
type endless struct {
	ctx   context.Context
	given int
	wait  bool
}

// drainLimit is more than net/http and similar servers read of an unread body before they answer.
const drainLimit = 1 << 20

func (e *endless) Read(b []byte) (int, error) {
	if e.given >= drainLimit {
		if e.wait {
			<-e.ctx.Done()
		}
		return 0, io.ErrUnexpectedEOF
	}
	for i := range b {
		b[i] = 'a'
	}
	if e.given == 0 {
		b[0] = '"'
	}
	e.given += len(b)
	return len(b), nil
}
