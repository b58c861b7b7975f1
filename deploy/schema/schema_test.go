// Package schema checks deploy/kubernetes.yaml against Kubernetes' own types. It is a
// module of its own: nothing else needs them.
package schema

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// read decodes the manifest, and fails for a field that there is not, or that is of
// another type, or that is there twice.
func read(t *testing.T) (d appsv1.Deployment, s corev1.Service) {
	t.Helper()
	b, err := os.ReadFile("../kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs := bytes.Split(b, []byte("\n---\n"))
	if len(docs) != 2 {
		t.Fatalf("%d documents, not a Deployment and a Service", len(docs))
	}
	for i, into := range []any{&d, &s} {
		text, err := yaml.YAMLToJSONStrict(docs[i])
		if err != nil {
			t.Fatal(err)
		}
		// As the API server reads it: case counts.
		strict, err := json.UnmarshalStrict(text, into)
		if err := errors.Join(append(strict, err)...); err != nil {
			t.Fatal(err)
		}
	}
	return d, s
}

func TestFits(t *testing.T) {
	d, s := read(t)
	if d.APIVersion != "apps/v1" || d.Kind != "Deployment" || s.APIVersion != "v1" || s.Kind != "Service" {
		t.Errorf("%v, %v", d.TypeMeta, s.TypeMeta)
	}
	for name, labels := range map[string]map[string]string{"template": d.Spec.Template.Labels, "Service": s.Spec.Selector} {
		for key, value := range d.Spec.Selector.MatchLabels {
			if labels[key] != value {
				t.Errorf("the selector's %s is %q in the %s", key, labels[key], name)
			}
		}
	}
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	port := func(p corev1.ContainerPort) bool { return p.Name == s.Spec.Ports[0].TargetPort.StrVal }
	if !slices.ContainsFunc(c.Ports, port) {
		t.Error("the Service's port is none of the container's")
	}
	// What the "restricted" Pod Security Standard wants.
	sec, own := pod.SecurityContext, c.SecurityContext
	if !*sec.RunAsNonRoot || *sec.RunAsUser == 0 || sec.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*own.AllowPrivilegeEscalation || !*own.ReadOnlyRootFilesystem || !slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("%v, %v", sec, own)
	}
	if c.Lifecycle != nil || c.LivenessProbe != nil {
		t.Error("a hook, or a liveness probe")
	}
}

// TestGrace: the grace period covers what a stop may take.
func TestGrace(t *testing.T) {
	d, _ := read(t)
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	flag := func(name string) time.Duration {
		i := slices.Index(c.Args, name)
		if i < 0 {
			t.Fatalf("no %s", name)
		}
		d, err := time.ParseDuration(c.Args[i+1])
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	delay := flag("--stop-delay")
	const end = 4 * time.Second // of what ignores the drain: TERM, and KILL
	if most, grace := delay+flag("--drain-timeout")+end, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second; grace < most+2*time.Second {
		t.Errorf("a stop may take %v, and the grace period is %v", most, grace)
	}
	// The pod's end is one reason for its endpoint to go; the probe is another.
	p := c.ReadinessProbe
	notices := time.Duration(p.PeriodSeconds*cmp.Or(p.FailureThreshold, 3)) * time.Second
	if delay < notices+2*time.Second {
		t.Errorf("the probe needs up to %v to notice, and the delay is %v", notices, delay)
	}
}
