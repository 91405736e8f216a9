// Package models holds the manifests of the models that hailo-clip can pull; see model.Manifest.
//
// A file whose size or digest is not known here is held to what its first pull brought. Where the
// facts are from: clip-vit-b-32, the addresses only, as Hugging Face, the vendor's model zoo (its
// list for Hailo-10H) and the vendor's resources publish them; tinyclip-vit-8m-16, size and digest
// of a pinned commit. The learned logit scale of TinyCLIP is not known, so CLIP's 100 is used. Its
// text encoder exists for the NPU, but the token embedding and the projection that go with it are
// not published as files: text is encoded on the CPU.
package models

import "embed"

// FS holds NAME.json for each model.
//
//go:embed *.json
var FS embed.FS
