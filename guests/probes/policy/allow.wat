;; Allows everything: what every other probe is compared with.
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32) (i32.const 256))
