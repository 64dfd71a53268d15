package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var groupVersion = schema.GroupVersion{Group: "bench.kaos.tools", Version: "v1"}

// Agent is the object of the benchmark as a struct, as a typed controller would have it.
type Agent struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              AgentSpec   `json:"spec"`
	Status            AgentStatus `json:"status"`
}

// AgentSpec is what the user asks for.
type AgentSpec struct {
	Round      int64       `json:"round"`
	ModelAPI   string      `json:"modelAPI"`
	Model      string      `json:"model"`
	Replicas   int32       `json:"replicas"`
	MCPServers []string    `json:"mcpServers"`
	Config     AgentConfig `json:"config"`
}

// AgentConfig is a part of the spec.
type AgentConfig struct {
	Description  string `json:"description"`
	Instructions string `json:"instructions"`
	MaxSteps     int32  `json:"maxSteps"`
}

// AgentStatus is what the controller saw.
type AgentStatus struct {
	ObservedRound int64              `json:"observedRound"`
	Endpoint      string             `json:"endpoint"`
	Conditions    []metav1.Condition `json:"conditions"`
}

// AgentList is a list of agents.
type AgentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []Agent `json:"items"`
}

// DeepCopyObject makes Agent a runtime.Object.
func (a *Agent) DeepCopyObject() runtime.Object { return a.deepCopy() }

func (a *Agent) deepCopy() *Agent {
	out := *a
	a.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.MCPServers = append([]string(nil), a.Spec.MCPServers...)
	out.Status.Conditions = make([]metav1.Condition, len(a.Status.Conditions))
	for i := range a.Status.Conditions {
		a.Status.Conditions[i].DeepCopyInto(&out.Status.Conditions[i])
	}
	return &out
}

// DeepCopyObject makes AgentList a runtime.Object.
func (l *AgentList) DeepCopyObject() runtime.Object {
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]Agent, len(l.Items))
	for i := range l.Items {
		out.Items[i] = *l.Items[i].deepCopy()
	}
	return &out
}

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(groupVersion, &Agent{}, &AgentList{})
	metav1.AddToGroupVersion(s, groupVersion)
	return s
}
