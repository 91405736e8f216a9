// Package models holds the manifests of the models that hailo-clip can pull; see model.Manifest.
//
// A file whose size or digest is not known here is held to what its first pull brought. Where the facts are from:
//
//   - Files for the NPU, rates, accuracy on the chip and parameters (without those of the token table): the lists
//     of the vendor's model zoo for Hailo-10H, release v5.2.0. That of clip-vit-b-32's text files: the vendor's applications.
//     The vendor names no sizes: about_bytes of an encoder is a byte for each parameter, an estimate.
//   - Files for the CPU: the lists of the repositories on Hugging Face; sizes and digests are those of a pinned commit.
//     That the repository of tinyclip-vit-40m-32 has model_quantized.onnx too, as those of its siblings, was not seen.
//   - Dimensions: the vendor's configuration of each network, and the checkpoints'. The normalisation of
//     clip-vit-l-14-laion2b is OpenCLIP's; it matters on the CPU only.
//   - The learned logit scale of TinyCLIP is not known, so CLIP's 100 is used.
//
// The vendor publishes the token table and the projection of clip-vit-b-32 only; those of the others are made
// from a checkpoint, see model.Catalog.BuildText. All text encoders take token embeddings without positions. That of
// clip-vit-b-32 ends with the final normalisation; by the vendor's configuration those of TinyCLIP end with the sum
// of the last layer, before it, although the vendor measured them without one on the host. Nobody has tried them here: a start
// compares the texts of NPU and CPU where the model has both encoders, which tinyclip-vit-61m-32 has not.
//
// Of the quantised models for the CPU those files are taken that have the weights of the convolution without sign
// (model_quantized, not model_int8): ONNX Runtime has no other on the CPU.
package models

import "embed"

// FS holds NAME.json for each model.
//
//go:embed *.json
var FS embed.FS
