"""What each provider of `ray up` needs: the provider's own section, and the config of a machine."""

from __future__ import annotations

from typing import Any

from cluster.errors import SpecError
from cluster.manifests.machine_types import MachineType
from trainer.spec.deploy_machines import RayUpSpec

#: Provider -> a module that Ray's autoscaler imports on the head, and the packages to install if the image lacks it.
AUTOSCALER_PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "aws": ("boto3", ("boto3>=1.34",)),
    "gcp": ("googleapiclient", ("google-api-python-client>=2,<3", "google-auth>=2")),
    "azure": (
        "azure.mgmt.compute",
        # The versions that Ray 2.60 names itself.
        ("azure-core==1.35.0", "azure-identity==1.23.1", "azure-mgmt-compute==35.0.0", "azure-mgmt-network==29.0.0",
         "azure-mgmt-resource==24.0.0", "azure-common==1.1.28", "msrest==0.7.1", "msrestazure==0.6.4.post1"),
    ),
}  # fmt: skip
_HOW_TO_FIND_AN_IMAGE = {
    "aws": "`aws ssm get-parameter --name "
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id` prints an AMI",
    "gcp": "`gcloud compute images list --project deeplearning-platform-release` prints images; write projects/...",
    "azure": "`az vm image list --publisher microsoft-dsvm --all` prints images; write publisher:offer:sku:version",
}


def provider_config(config: RayUpSpec) -> dict[str, Any]:
    """Return the section `provider` of the config."""
    if config.provider == "local":
        return {"type": "local", "head_ip": config.head_host, "worker_ips": list(config.worker_hosts)}
    if config.provider == "aws":
        # Machines that are given back are ended, not stopped: a stopped one still costs its disk.
        own = {"region": config.region, "availability_zone": config.zone, "cache_stopped_nodes": False}
    elif config.provider == "gcp":
        own = {"region": config.region, "availability_zone": config.zone, "project_id": config.project}
    else:
        own = {"location": config.region, "resource_group": config.project, "availability_zone": config.zone or "auto"}
    return {"type": config.provider, **{key: value for key, value in own.items() if value is not None}}


def machine_config(config: RayUpSpec, machine: MachineType, *, is_spot: bool) -> dict[str, Any]:
    """Return `node_config` of a machine, in the form of the cloud's own interface."""
    image = config.machine_image
    if image is None:
        raise SpecError(
            "deploy.ray_up.machine_image is not set, and machines need a disk image with Docker and drivers",
            f"set it; {_HOW_TO_FIND_AN_IMAGE[config.provider]}",
        )
    if config.provider == "aws":
        return _aws(config, machine, image, is_spot)
    return (
        _gcp(config, machine, image, is_spot) if config.provider == "gcp" else _azure(config, machine, image, is_spot)
    )


def _aws(config: RayUpSpec, machine: MachineType, image: str, is_spot: bool) -> dict[str, Any]:
    return {
        "InstanceType": machine.name,
        "ImageId": image,
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {
                    "VolumeSize": config.disk_gb,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "MetadataOptions": {"HttpTokens": "required"},  # version 2 of the metadata service only
        **({"InstanceMarketOptions": {"MarketType": "spot"}} if is_spot else {}),
    }


def _gcp(config: RayUpSpec, machine: MachineType, image: str, is_spot: bool) -> dict[str, Any]:
    disk = {
        "diskSizeGb": config.disk_gb,
        "diskType": f"zones/{config.zone}/diskTypes/pd-balanced",
        "sourceImage": image,
    }
    scheduling: dict[str, Any] = {}
    if machine.gpus:
        scheduling["onHostMaintenance"] = "TERMINATE"  # machines with GPUs cannot move
    if is_spot:
        scheduling |= {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "onHostMaintenance": "TERMINATE",
        }
    drivers = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
    return {
        "machineType": machine.name,
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
        **({"metadata": drivers} if machine.gpus else {}),
        **({"scheduling": scheduling} if scheduling else {}),
    }


def _azure(config: RayUpSpec, machine: MachineType, image: str, is_spot: bool) -> dict[str, Any]:
    parts = image.split(":")
    if len(parts) != 4:
        raise SpecError(
            f"deploy.ray_up.machine_image={image} is no image of Azure",
            "write publisher:offer:sku:version, for example microsoft-dsvm:ubuntu-hpc:2204:latest",
        )
    names = ("imagePublisher", "imageOffer", "imageSku", "imageVersion")
    return {
        "azure_arm_parameters": {
            "vmSize": machine.name,
            **dict(zip(names, parts, strict=True)),
            "osDiskSize": config.disk_gb,
            **({"priority": "Spot", "billingProfile": {"maxPrice": -1}} if is_spot else {}),
        }
    }
