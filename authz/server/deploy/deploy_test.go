package deploy

import (
	"bytes"
	"io"
	"os"
	"path"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// The files of this repository are generated from the templates. UPDATE=1 writes them.
func TestFiles(t *testing.T) {
	found, err := Files(Options{Name: "oasgate", Go: "1.26", Stores: true}, "authz/server/deploy")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range found {
		file := path.Join("../../..", name)
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what its template makes: run UPDATE=1 go test ./authz/server/deploy: %v",
				name, err)
		}
	}
}

// The files of all programs are valid, and drop the privileges that a server does not need.
func TestPrograms(t *testing.T) {
	for _, o := range []Options{
		{Name: "oasgate", Go: "1.26", Stores: true}, {Name: "many-things", Go: "1.27"},
	} {
		t.Run(o.Name, func(t *testing.T) {
			found, err := Files(o, "deploy")
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range found {
				if bytes.Contains(text, []byte("{{")) ||
					bytes.Contains(text, []byte("<no value>")) ||
					!o.Stores && bytes.Contains(text, []byte("DATABASE")) {
					t.Errorf("%s is not filled in: %s", name, text)
				}
			}
			testDockerfile(t, string(found["Dockerfile"]))
			testCompose(t, o, found["compose.yaml"])
			testKubernetes(t, o, found["deploy/kubernetes.yaml"])
			testUnit(t, o, string(found["deploy/"+o.Name+".service"]))
		})
	}
}

func testDockerfile(t *testing.T, text string) {
	_, final, ok := strings.Cut(text, "\nFROM scratch\n")
	for _, want := range []string{"\nUSER 65532:65532\n", "\nHEALTHCHECK ", "\nENTRYPOINT [\""} {
		if !ok || !strings.Contains(final, want) {
			t.Errorf("the image has no %q: %s", want, text)
		}
	}
	if !strings.Contains(text, "CGO_ENABLED=0") || strings.Contains(final, "\nRUN") {
		t.Errorf("the program is not static, or the image runs something: %s", text)
	}
}

func testCompose(t *testing.T, o Options, text []byte) {
	var file struct {
		Services map[string]struct {
			ReadOnly    bool     `yaml:"read_only"`
			User        string   `yaml:"user"`
			CapDrop     []string `yaml:"cap_drop"`
			SecurityOpt []string `yaml:"security_opt"`
			Healthcheck struct{ Test []string }
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	s := file.Services[o.Name]
	if !s.ReadOnly || s.User != "65532:65532" || strings.Join(s.CapDrop, "") != "ALL" ||
		strings.Join(s.SecurityOpt, "") != "no-new-privileges:true" ||
		len(s.Healthcheck.Test) != 3 {
		t.Errorf("the service is %+v: want it without privileges", s)
	}
	for _, store := range []string{"postgres", "redis"} {
		if _, ok := file.Services[store]; ok != o.Stores {
			t.Errorf("%s is a service: %t, want %t", store, ok, o.Stores)
		}
	}
}

func testKubernetes(t *testing.T, o Options, text []byte) {
	var kinds []string
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var object struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct {
						SecurityContext struct {
							RunAsNonRoot bool `yaml:"runAsNonRoot"`
						} `yaml:"securityContext"`
						Containers []struct {
							SecurityContext struct {
								AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
								ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
								Capabilities             struct{ Drop []string }
							} `yaml:"securityContext"`
						}
					}
				}
				Ports []struct {
					TargetPort string `yaml:"targetPort"`
				}
			}
		}
		err := decoder.Decode(&object)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, object.Kind)
		if object.Kind == "Service" &&
			(len(object.Spec.Ports) != 1 || object.Spec.Ports[0].TargetPort != "http") {
			t.Errorf("the service exposes %v, want the API alone", object.Spec.Ports)
		}
		if object.Kind != "Deployment" {
			continue
		}
		if !object.Spec.Template.Spec.SecurityContext.RunAsNonRoot {
			t.Error("the container can run as root")
		}
		c := object.Spec.Template.Spec.Containers[0].SecurityContext
		if c.AllowPrivilegeEscalation == nil || *c.AllowPrivilegeEscalation ||
			!c.ReadOnlyRootFilesystem || strings.Join(c.Capabilities.Drop, "") != "ALL" {
			t.Errorf("the container is %+v: want it without privileges", c)
		}
	}
	if strings.Join(kinds, " ") != "Deployment Service PodDisruptionBudget" {
		t.Errorf("the objects are %v", kinds)
	}
}

func testUnit(t *testing.T, o Options, text string) {
	for _, want := range []string{
		"\nExecStart=/usr/local/bin/" + o.Name + " serve\n", "\nDynamicUser=yes\n",
		"\nProtectSystem=strict\n", "\nCapabilityBoundingSet=\n", "\nNoNewPrivileges=yes\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the unit has no %q: %s", want, text)
		}
	}
}
