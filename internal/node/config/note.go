package config

import "time"

// Annotation is where a member's own Node object says how its first boot went; the
// kubelet's credentials may write there, and on no other node.
const Annotation = "imgbuild.dev/first-boot"

// Note is the annotation's content, JSON.
type Note struct {
	Phase   string    `json:"phase"` // of the first boot's journal
	Step    string    `json:"step"`
	Attempt int       `json:"attempt"`
	Cause   string    `json:"cause,omitempty"`
	Since   time.Time `json:"since"`
	Image   string    `json:"image"` // plan id of the image that it runs
}
