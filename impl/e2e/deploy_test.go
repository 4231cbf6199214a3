//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// launched is a command line of a deployment file, with its settings.
type launched struct {
	file        string
	args        []string
	environment map[string]string
	health      []string // the command line of the health check, if any
}

// TestDeployments runs the command lines of all deployment files unchanged, as an unprivileged user
// in an empty, read-only directory, with a database and an issuer of the test.
func TestDeployments(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program four times")
	}
	for _, l := range []launched{dockerfile(t), compose(t), kubernetes(t), unit(t)} {
		t.Run(l.file, func(t *testing.T) { l.run(t) })
	}
}

func (l launched) run(t *testing.T) {
	// Not t.TempDir, whose parents are of this user only.
	dir, err := os.MkdirTemp("", "deployment")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	empty, data := filepath.Join(dir, "empty"), filepath.Join(dir, "data")
	for path, mode := range map[string]os.FileMode{dir: 0o755, empty: 0o555, data: 0o777} {
		_ = os.Mkdir(path, mode)
		if err := os.Chmod(path, mode); err != nil { // regardless of the umask
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "oasgate")
	if err := os.WriteFile(binary, text, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "database-url")
	if err := os.WriteFile(secret, []byte("sqlite:"+data+"/oasgate.db\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{devAudience}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	// What is different on this machine.
	environ := []string{}
	for name, value := range l.environment {
		switch {
		case strings.HasSuffix(name, "_ISSUER"):
			value = issuer.URL()
		case strings.HasSuffix(name, "_AUDIENCE"):
			value = devAudience
		case strings.HasSuffix(name, "_DATABASE_URL_FILE"):
			value = secret
		case strings.HasSuffix(name, "_DATABASE_URL") && value != "":
			value = "sqlite:" + data + "/oasgate.db"
		case strings.Contains(name, "_REPLAY_STORE"):
			continue // no Redis
		case strings.HasSuffix(name, "_ADMIN_ADDR"):
			value = freeAddress(t)
		}
		environ = append(environ, name+"="+value)
	}
	addr := freeAddress(t)
	environ = append(environ, "OASGATE_ADDR="+addr)
	if l.environment["OASGATE_ISSUER"] == "" {
		environ = append(environ, "OASGATE_ISSUER="+issuer.URL(), "OASGATE_AUDIENCE="+devAudience)
	}
	command := func(args []string) *exec.Cmd {
		if filepath.Base(args[0]) != "oasgate" {
			t.Fatalf("the command line is %q, want the program", args)
		}
		c := exec.Command(binary, args[1:]...)
		c.Dir, c.Env = empty, environ
		if os.Getuid() == 0 {
			nobody := &syscall.Credential{Uid: 65532, Gid: 65532}
			c.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
		}
		return c
	}

	var log bytes.Buffer
	serve := command(l.args)
	serve.Stdout, serve.Stderr = &log, &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	t.Cleanup(func() { _ = serve.Process.Kill() })
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case err := <-ended:
			t.Fatalf("%q ended: %v\n%s", l.args, err, &log)
		default:
		}
		if time.Since(begun) > patience {
			t.Fatalf("%q is not ready: %v", l.args, err)
		}
	}
	if l.health != nil {
		if output, err := command(l.health).CombinedOutput(); err != nil {
			t.Errorf("%q: %v: %s", l.health, err, output)
		}
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("after SIGTERM the program ends with %v", err)
	}
	if strings.Contains(log.String(), "not a setting") {
		t.Errorf("a variable of the file is not a setting: %s", &log)
	}
	if l.health != nil {
		if err := command(l.health).Run(); err == nil {
			t.Errorf("%q succeeds without a server", l.health)
		}
	}
}

func freeAddress(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func readFile(t *testing.T, path string) []byte {
	text, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func dockerfile(t *testing.T) launched {
	l := launched{file: "Dockerfile", environment: map[string]string{}}
	text := string(readFile(t, l.file))
	list := func(instruction string) (words []string) {
		found := regexp.MustCompile(`(?m)^` + instruction + ` (\[.*\])$`).FindStringSubmatch(text)
		if found == nil || json.Unmarshal([]byte(found[1]), &words) != nil {
			t.Fatalf("%s has no %s with a list", l.file, instruction)
		}
		return words
	}
	l.args = append(list("ENTRYPOINT"), list("CMD")...)
	l.health = list("HEALTHCHECK .* CMD")
	variables := regexp.MustCompile(`(?m)^ENV (\w+)=(.*)$`)
	for _, found := range variables.FindAllStringSubmatch(text, -1) {
		l.environment[found[1]] = found[2]
	}
	return l
}

func compose(t *testing.T) launched {
	var file struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]string
			Healthcheck struct{ Test []string }
		}
	}
	if err := yaml.Unmarshal(readFile(t, "compose.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	s := file.Services["oasgate"]
	return launched{
		"compose.yaml", append([]string{"/oasgate"}, s.Command...), s.Environment,
		s.Healthcheck.Test[1:],
	}
}

func kubernetes(t *testing.T) launched {
	var file struct { // the first document, the Deployment
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct {
						Args []string
						Env  []struct{ Name, Value string }
					}
				}
			}
		}
	}
	const name = "authz/server/deploy/kubernetes.yaml"
	if err := yaml.NewDecoder(bytes.NewReader(readFile(t, name))).Decode(&file); err != nil {
		t.Fatal(err)
	}
	container := file.Spec.Template.Spec.Containers[0]
	l := launched{
		file: name, args: append([]string{"/oasgate"}, container.Args...),
		environment: map[string]string{},
	}
	for _, variable := range container.Env {
		l.environment[variable.Name] = variable.Value
	}
	return l
}

func unit(t *testing.T) launched {
	l := launched{file: "authz/server/deploy/oasgate.service", environment: map[string]string{}}
	for line := range strings.Lines(string(readFile(t, l.file))) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "ExecStart":
			l.args = strings.Fields(value)
		case "Environment":
			name, value, _ := strings.Cut(value, "=")
			l.environment[name] = value
		}
	}
	return l
}
