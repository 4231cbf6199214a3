package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// source is where a document and the files that it refers to are read from: this machine, standard
// input, a git revision, or a server. All files of a document come from one source, so that a
// comparison never mixes revisions.
type source struct {
	root *url.URL // of the document, as its references are resolved against it
	read func(location *url.URL) ([]byte, error)
	// overlay reads an overlay, named relative to the working directory, from the document's
	// revision if it has one, and otherwise from this machine.
	overlay func(name string) ([]byte, error)
	close   func() // releases what reading needed
}

// standardInput is the name of a document on standard input.
const standardInput = "-"

// open returns the source of a document by its name.
func (t *tool) open(ctx context.Context, name string) (source, error) {
	if name == standardInput {
		return source{
			&url.URL{Path: standardInput},
			t.readStandardInput,
			os.ReadFile,
			func() {},
		}, nil
	}
	if scheme, _, ok := strings.Cut(name, "://"); ok {
		if scheme != "https" && scheme != "http" {
			return source{}, fmt.Errorf(
				"expected https, a file or REVISION:FILE, received %s",
				scheme,
			)
		}
		return remote(ctx, name)
	}
	if _, err := os.Stat(name); err != nil {
		// On other systems, a revision of one letter would be a drive.
		if rev, file, ok := strings.Cut(name, ":"); ok && len(rev) != 1 {
			return revision(ctx, rev, file)
		}
	}
	return source{&url.URL{Path: filepath.ToSlash(name)}, readFile, os.ReadFile, func() {}}, nil
}

// readStandardInput reads a document that consists of one file. It refuses references to files,
// because their revision is not known.
func (t *tool) readStandardInput(location *url.URL) ([]byte, error) {
	if location.Path != standardInput || location.Host != "" {
		return nil,
			fmt.Errorf("it refers to the file %s, whose revision is not known, because the "+
				"document is from standard input: name the document instead, as openapi.yaml or "+
				"main:openapi.yaml (authz diff main:openapi.yaml openapi.yaml)",
				location.Redacted())
	}
	return io.ReadAll(t.stdin)
}

func readFile(location *url.URL) ([]byte, error) {
	if location.Scheme != "" || location.Host != "" {
		return nil, errElsewhere(location, "files of this machine")
	}
	return os.ReadFile(filepath.FromSlash(location.Path))
}

// errElsewhere returns the error for a reference that leaves its source. The meaning of a document
// must not depend on other machines.
func errElsewhere(location *url.URL, where string) error {
	return fmt.Errorf("it refers to %s: only %s are read; keep a copy beside the document",
		location.Redacted(), where)
}

// maxRemote and remoteTimeout bound the response of a server.
const (
	maxRemote     = 64 << 20
	remoteTimeout = 30 * time.Second
)

// remote reads a document, and the files that it refers to, from one server by https.
func remote(ctx context.Context, name string) (source, error) {
	if err := requireHTTPS(name); err != nil {
		return source{}, err
	}
	root, err := url.Parse(name)
	if err != nil {
		return source{}, err
	}
	caller := newHTTPClient()
	caller.Timeout = remoteTimeout
	read := func(location *url.URL) ([]byte, error) {
		if location.Scheme != root.Scheme || location.Host != root.Host {
			return nil, errElsewhere(location, "files of "+root.Host)
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
		if err != nil {
			return nil, err
		}
		response, err := caller.Do(r)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf(
				"%s: status is %d, expected 200",
				location.Redacted(),
				response.StatusCode,
			)
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, maxRemote+1))
		if err == nil && len(body) > maxRemote {
			err = fmt.Errorf("%s: expected at most %d MiB", location.Redacted(), maxRemote>>20)
		}
		return body, err
	}
	return source{root, read, os.ReadFile, func() {}}, nil
}

// revision reads a document, and all files that it refers to, from one git revision. An empty
// revision means the index. As in git, the file is relative to the top of the repository, or to the
// working directory if it begins with "./".
func revision(ctx context.Context, rev, file string) (source, error) {
	tree := ""
	if rev != "" {
		id, err := git(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{tree}")
		if errors.Is(err, exec.ErrNotFound) {
			return source{}, fmt.Errorf("reading a revision requires git: %w", err)
		}
		if err != nil {
			return source{}, fmt.Errorf(
				"there is no such file, and %s is not a revision of a git "+
					"repository here (in a shallow clone, fetch it first: git fetch origin %s)",
				rev,
				rev,
			)
		}
		tree = id
	}
	prefix, err := git(ctx, "rev-parse", "--show-prefix")
	if err != nil {
		return source{}, err
	}
	if strings.HasPrefix(file, "./") || strings.HasPrefix(file, "../") {
		file = path.Join(prefix, file)
	}
	objects, err := readObjects(ctx)
	if err != nil {
		return source{}, err
	}
	read := func(location *url.URL) ([]byte, error) {
		if location.Scheme != "" || location.Host != "" {
			return nil, errElsewhere(location, "files of the revision "+rev)
		}
		name := path.Clean(location.Path)
		if path.IsAbs(name) || strings.HasPrefix(name, "../") || strings.Contains(name, "\n") {
			return nil, fmt.Errorf(
				"%s is not in the repository: only files of the revision are read",
				name,
			)
		}
		data, err := objects.read(tree + ":" + name)
		if err != nil {
			return nil, fmt.Errorf("%s:%s: %w", rev, name, err)
		}
		return data, nil
	}
	overlay := func(name string) ([]byte, error) {
		return read(&url.URL{Path: path.Join(prefix, filepath.ToSlash(name))})
	}
	return source{&url.URL{Path: path.Clean(file)}, read, overlay, objects.close}, nil
}

// git returns the first line that a git command prints.
func git(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "git", args...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if message := strings.TrimSpace(stderr.String()); err != nil && message != "" {
		err = errors.New(message)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, err
}

// errNotInRevision means that a revision does not have a file.
var errNotInRevision = errors.New("no such file in this revision")

// objects is a running git cat-file, one process for all files of a revision.
type objects struct {
	stdin  io.WriteCloser
	stdout *bufio.Reader
	wait   func() error
}

func readObjects(ctx context.Context) (*objects, error) {
	command := exec.CommandContext(ctx, "git", "cat-file", "--batch", "--follow-symlinks")
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	return &objects{stdin, bufio.NewReader(stdout), command.Wait}, nil
}

// read returns the file of a name such as main:openapi.yaml.
func (o *objects) read(name string) ([]byte, error) {
	if _, err := io.WriteString(o.stdin, name+"\n"); err != nil {
		return nil, err
	}
	header, err := o.stdout.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("git cat-file: %w", err)
	}
	fields := strings.Fields(header)
	size, err := strconv.ParseInt(fields[len(fields)-1], 10, 64)
	if err != nil { // NAME missing
		return nil, errNotInRevision
	}
	data := make([]byte, size+1) // a newline follows
	if _, err = io.ReadFull(o.stdout, data); err != nil {
		return nil, fmt.Errorf("git cat-file: %w", err)
	}
	if len(fields) < 3 || fields[len(fields)-2] != "blob" { // HASH tree SIZE, symlink SIZE
		return nil, errors.New("expected a file in this revision")
	}
	return data[:size], nil
}

func (o *objects) close() {
	_ = o.stdin.Close()
	_ = o.wait() // everything asked for has been read
}
